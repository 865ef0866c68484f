"""usage: openai_sdk.py chat|chat-stream|chat-stream-usage|responses|responses-stream MODEL PROMPT"""
import json
import sys

import openai

mode, model, prompt = sys.argv[1:4]
client = openai.OpenAI(api_key="dummy-key", max_retries=0)
messages = [{"role": "user", "content": prompt}]
text, usage = "", None
try:
    if mode == "chat":
        answer = client.chat.completions.create(model=model, messages=messages)
        text, usage = answer.choices[0].message.content, answer.usage
    elif mode.startswith("chat-stream"):
        more = {"stream_options": {"include_usage": True}} if mode.endswith("usage") else {}
        for chunk in client.chat.completions.create(
            model=model, messages=messages, stream=True, **more
        ):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
            usage = chunk.usage or usage
    elif mode == "responses":
        answer = client.responses.create(model=model, input=prompt)
        text, usage = answer.output_text, answer.usage
    else:
        for event in client.responses.create(model=model, input=prompt, stream=True):
            if event.type == "response.output_text.delta":
                text += event.delta
            if event.type == "response.completed":
                usage = event.response.usage
    print(json.dumps({"text": text, "total": usage.total_tokens if usage else None}))
except openai.APIStatusError as e:
    print(json.dumps({"error": type(e).__name__, "status": e.status_code}))
