"""usage: anthropic_sdk.py json|stream MODEL PROMPT - prints what the SDK made of the answer."""
import json
import sys

import anthropic

mode, model, prompt = sys.argv[1:4]
client = anthropic.Anthropic(api_key="dummy-key", max_retries=2 if mode == "retry" else 0)
ask = dict(model=model, max_tokens=64, messages=[{"role": "user", "content": prompt}])
try:
    if mode == "stream":
        with client.messages.stream(**ask) as stream:
            text = "".join(stream.text_stream)
            message = stream.get_final_message()
    else:
        message = client.messages.create(**ask)
        text = message.content[0].text
    print(json.dumps({"text": text, "input": message.usage.input_tokens,
                      "output": message.usage.output_tokens, "model": message.model}))
except anthropic.APIStatusError as e:
    print(json.dumps({"error": type(e).__name__, "status": e.status_code}))
except anthropic.APIConnectionError as e:
    print(json.dumps({"error": type(e).__name__, "cause": repr(e.__cause__)}))
