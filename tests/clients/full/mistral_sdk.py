"""usage: mistral_sdk.py json|stream MODEL PROMPT"""
import json
import sys

from mistralai.client import Mistral

mode, model, prompt = sys.argv[1:4]
client = Mistral(api_key="dummy-key")
ask = dict(model=model, messages=[{"role": "user", "content": prompt}])
if mode == "stream":
    text, usage = "", None
    for event in client.chat.stream(**ask):
        text += event.data.choices[0].delta.content or ""
        usage = event.data.usage or usage
else:
    answer = client.chat.complete(**ask)
    text, usage = answer.choices[0].message.content, answer.usage
print(json.dumps({"text": text, "total": usage.total_tokens}))
