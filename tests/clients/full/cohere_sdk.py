"""usage: cohere_sdk.py json|stream MODEL PROMPT"""
import json
import sys

import cohere

mode, model, prompt = sys.argv[1:4]
client = cohere.ClientV2(api_key="dummy-key", log_warning_experimental_features=False)
ask = dict(model=model, messages=[{"role": "user", "content": prompt}])
if mode == "stream":
    text, usage = "", None
    for event in client.chat_stream(**ask):
        if event.type == "content-delta":
            text += event.delta.message.content.text
        if event.type == "message-end":
            usage = event.delta.usage
else:
    answer = client.chat(**ask)
    text, usage = answer.message.content[0].text, answer.usage
print(json.dumps({"text": text, "output": usage.billed_units.output_tokens}))
