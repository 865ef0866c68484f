"""usage: sockets.py websockets|websockets-plain|responses|realtime MODEL PROMPT

Three responses on one WebSocket, after a warm-up where there is such a thing."""
import json
import sys

import openai

mode, model, prompt = sys.argv[1:4]
KEY = "dummy-key"


def create(previous=None, **more):
    content = [{"type": "input_text", "text": prompt}]
    ask = {"type": "response.create", "model": model, "store": False, **more}
    ask["input"] = [{"type": "message", "role": "user", "content": content}]
    if previous:
        ask["previous_response_id"] = previous
    return ask


def listen(messages):
    """The text and the id of one response."""
    text = ""
    for message in messages:
        kind = message["type"]
        if kind == "response.output_text.delta":
            text += message["delta"]
        elif kind in ("response.completed", "response.done"):
            return text, message["response"]["id"]
        elif kind == "error":
            return f"error {message.get('status')}", None
    return "closed", None


def bare():
    from websockets.sync.client import connect

    compression = None if mode.endswith("plain") else "deflate"
    url = "wss://api.openai.com/v1/responses"
    headers = {"Authorization": f"Bearer {KEY}"}
    with connect(url, additional_headers=headers, compression=compression) as socket:
        messages = (json.loads(message) for message in socket)
        socket.send(json.dumps(create(generate=False)))
        _, previous = listen(messages)
        texts = []
        for turn in range(3):
            text = json.dumps(create(previous))
            # Once in fragments, with a ping before them.
            if turn == 1:
                socket.ping().wait(60)
                third = len(text) // 3
                socket.send(iter([text[:third], text[third : 2 * third], text[2 * third :]]))
            else:
                socket.send(text)
            said, previous = listen(messages)
            texts.append(said)
        return texts


def sdk():
    client = openai.OpenAI(api_key=KEY, max_retries=0)
    texts, previous = [], None
    if mode == "responses":
        connecting = client.responses.connect()
    else:
        connecting = client.realtime.connect(model=model)
    with connecting as connection:
        messages = (event.to_dict() for event in connection)
        for _ in range(3):
            if mode == "responses":
                connection.send(create(previous))
            else:
                content = [{"type": "input_text", "text": prompt}]
                item = {"type": "message", "role": "user", "content": content}
                connection.send({"type": "conversation.item.create", "item": item})
                connection.send({"type": "response.create", "response": {}})
            said, previous = listen(messages)
            texts.append(said)
    return texts


print(json.dumps({"texts": bare() if mode.startswith("websockets") else sdk()}))
