"""usage: sockets.py websockets|websockets-plain|responses|realtime MODEL PROMPT

Three responses on one WebSocket, after a warm-up where there is such a thing.

Asynchronous: the libraries' blocking clients read and write one TLS session from two threads, which
OpenSSL does not allow, and hang now and then, whatever they are connected to."""
import asyncio
import faulthandler
import json
import signal
import sys

faulthandler.register(signal.SIGTERM, chain=True)
mode, model, prompt = sys.argv[1:4]
KEY = "dummy-key"


def create(previous=None, **more):
    content = [{"type": "input_text", "text": prompt}]
    ask = {"type": "response.create", "model": model, "store": False, **more}
    ask["input"] = [{"type": "message", "role": "user", "content": content}]
    if previous:
        ask["previous_response_id"] = previous
    return ask


async def listen(messages):
    """The text and the id of one response."""
    text = ""
    async for message in messages:
        kind = message["type"]
        if kind == "response.output_text.delta":
            text += message["delta"]
        elif kind in ("response.completed", "response.done"):
            return text, message["response"]["id"]
        elif kind == "error":
            return f"error {message.get('status')}", None
    return "closed", None


async def read(socket):
    """Its messages; unlike an iterator of its own, this one may be left and taken up again."""
    while True:
        yield json.loads(await socket.recv())


async def bare():
    from websockets.asyncio.client import connect

    compression = None if mode.endswith("plain") else "deflate"
    url = "wss://api.openai.com/v1/responses"
    headers = {"Authorization": f"Bearer {KEY}"}
    async with connect(url, additional_headers=headers, compression=compression) as socket:
        await socket.send(json.dumps(create(generate=False)))
        _, previous = await listen(read(socket))
        texts = []
        for turn in range(3):
            text = json.dumps(create(previous))
            # Once in fragments, with a ping before them.
            if turn == 1:
                await asyncio.wait_for(await socket.ping(), 60)
                third = len(text) // 3
                await socket.send(iter([text[:third], text[third : 2 * third], text[2 * third :]]))
            else:
                await socket.send(text)
            said, previous = await listen(read(socket))
            texts.append(said)
        return texts


async def events(connection):
    while True:
        yield (await connection.recv()).to_dict()


async def sdk():
    import openai

    client = openai.AsyncOpenAI(api_key=KEY, max_retries=0)
    texts, previous = [], None
    if mode == "responses":
        connecting = client.responses.connect()
    else:
        connecting = client.realtime.connect(model=model)
    async with connecting as connection:
        for _ in range(3):
            if mode == "responses":
                await connection.send(create(previous))
            else:
                content = [{"type": "input_text", "text": prompt}]
                item = {"type": "message", "role": "user", "content": content}
                await connection.send({"type": "conversation.item.create", "item": item})
                await connection.send({"type": "response.create", "response": {}})
            said, previous = await listen(events(connection))
            texts.append(said)
    return texts


texts = asyncio.run(bare() if mode.startswith("websockets") else sdk())
print(json.dumps({"texts": texts}))
