"""usage: vertex_sdk.py gemini|gemini-stream|anthropic|anthropic-stream MODEL PROMPT"""
import json
import sys

from google.oauth2.credentials import Credentials

mode, model, prompt = sys.argv[1:4]
project = dict(project="test-project", credentials=Credentials("ya29.dummy-token"))
if mode.startswith("anthropic"):
    from anthropic import AnthropicVertex

    client = AnthropicVertex(
        region="us-east5", project_id="test-project", access_token="ya29.dummy-token", max_retries=0
    )
    ask = dict(model=model, max_tokens=64, messages=[{"role": "user", "content": prompt}])
    if mode.endswith("stream"):
        with client.messages.stream(**ask) as stream:
            text = "".join(stream.text_stream)
    else:
        text = client.messages.create(**ask).content[0].text
else:
    from google import genai

    client = genai.Client(vertexai=True, location="global", **project)
    if mode.endswith("stream"):
        chunks = client.models.generate_content_stream(model=model, contents=prompt)
        text = "".join(chunk.text or "" for chunk in chunks)
    else:
        text = client.models.generate_content(model=model, contents=prompt).text
print(json.dumps({"text": text}))
