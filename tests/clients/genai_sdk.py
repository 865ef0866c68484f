"""usage: genai_sdk.py json|stream MODEL PROMPT"""
import json
import sys

from google import genai

mode, model, prompt = sys.argv[1:4]
client = genai.Client(api_key="dummy-key")
if mode == "stream":
    chunks = list(client.models.generate_content_stream(model=model, contents=prompt))
    text, last = "".join(c.text or "" for c in chunks), chunks[-1]
else:
    last = client.models.generate_content(model=model, contents=prompt)
    text = last.text
print(json.dumps({"text": text, "total": last.usage_metadata.total_token_count}))
