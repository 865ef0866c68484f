"""usage: bedrock_sdk.py converse|converse-stream|invoke|anthropic|anthropic-stream MODEL PROMPT"""
import json
import os
import sys

mode, model, prompt = sys.argv[1:4]
os.environ.update(AWS_ACCESS_KEY_ID="AKIADUMMY", AWS_SECRET_ACCESS_KEY="dummy-secret")
REGION = "eu-west-1"
text = ""
if mode.startswith("anthropic"):
    from anthropic import AnthropicBedrock

    client = AnthropicBedrock(aws_region=REGION, max_retries=0)
    ask = dict(model=model, max_tokens=64, messages=[{"role": "user", "content": prompt}])
    if mode.endswith("stream"):
        with client.messages.stream(**ask) as stream:
            text = "".join(stream.text_stream)
    else:
        text = client.messages.create(**ask).content[0].text
else:
    import boto3

    client = boto3.client("bedrock-runtime", region_name=REGION)
    messages = [{"role": "user", "content": [{"text": prompt}]}]
    if mode == "converse":
        answer = client.converse(modelId=model, messages=messages)
        text = answer["output"]["message"]["content"][0]["text"]
    elif mode == "converse-stream":
        for event in client.converse_stream(modelId=model, messages=messages)["stream"]:
            text += event.get("contentBlockDelta", {}).get("delta", {}).get("text", "")
    else:
        body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64,
                "messages": [{"role": "user", "content": prompt}]}
        answer = client.invoke_model(modelId=model, body=json.dumps(body))
        text = json.loads(answer["body"].read())["content"][0]["text"]
print(json.dumps({"text": text}))
