"""usage: live_sdk.py MODEL PROMPT [TOKEN]

Three turns of one Live session; TOKEN is an ephemeral one, for which the SDK asks elsewhere."""
import asyncio
import json
import sys

from google import genai

model, prompt = sys.argv[1:3]
token = sys.argv[3] if len(sys.argv) > 3 else None


async def main():
    options = {"api_version": "v1alpha"} if token else None
    client = genai.Client(api_key=token or "dummy-key", http_options=options)
    texts = []
    async with client.aio.live.connect(model=model, config={"response_modalities": ["TEXT"]}) as session:
        for _ in range(3):
            turn = {"role": "user", "parts": [{"text": prompt}]}
            await session.send_client_content(turns=turn, turn_complete=True)
            text = ""
            async for message in session.receive():
                content = message.server_content
                for part in (content and content.model_turn and content.model_turn.parts) or []:
                    text += part.text or ""
            texts.append(text)
    return texts


print(json.dumps({"texts": asyncio.run(main())}))
