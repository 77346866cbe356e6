"""PyPI's moondream against a server. What to ask, and what is right, comes as JSON on standard input."""

import base64
import json
import sys
import urllib.error

import moondream
from moondream.types import Base64EncodedImage
from PIL import Image

given = json.load(sys.stdin)
right = given["right"]
endpoint = given["url"] + "/v1"
model = moondream.vl(endpoint=endpoint, api_key=given["key"])
with open(given["picture"], "rb") as file:
    encoded = base64.b64encode(file.read()).decode()
picture = Base64EncodedImage(image_url=f"data:image/png;base64,{encoded}")

assert model.caption(picture, length="short")["caption"] == right["caption en"]
assert model.caption(picture)["caption"] == right["caption en"]
assert "".join(model.caption(picture, length="long", stream=True)["caption"]) == right["describe en"]
question = "what is it?"
assert model.query(picture, question)["answer"] == right[f"answer en {question}"]
assert "".join(model.query(picture, question, stream=True)["answer"]) == right[f"answer en {question}"]

objects = model.detect(picture, "panda")["objects"]
assert objects and all(0 <= one["x_min"] < one["x_max"] <= 1 for one in objects), objects
points = model.point(picture, "panda")["points"]
centres = [((one["x_min"] + one["x_max"]) / 2, (one["y_min"] + one["y_max"]) / 2) for one in objects]
assert [(point["x"], point["y"]) for point in points] == centres, points
assert len(model.detect(picture, "panda ; bus", settings={"max_objects": 1})["objects"]) == 1

segment = model.segment(picture, "panda")
assert segment["path"].startswith("M") and 0 <= segment["bbox"]["x_min"] < segment["bbox"]["x_max"] <= 1, segment
parts = list(model.segment(picture, "panda", stream=True))
assert parts[0]["bbox"] == segment["bbox"] and parts[-1]["path"] == segment["path"], parts
assert parts[-1]["completed"]

# Its own JPEG of a picture; and its chat, which is OpenAI's.
assert model.caption(Image.open(given["picture"]))["caption"]
content = [{"type": "text", "text": "caption en"}, {"type": "image_url", "image_url": {"url": picture.image_url}}]
messages = [{"role": "user", "content": content}]
chat = model.chat(messages)
assert chat["message"]["content"] == right["caption en"] and chat["finish_reason"] == "stop", chat
assert "".join(model.chat(messages, stream=True)["message"]) == right["caption en"]


def refused(status, ask):
    try:
        got = ask()
    except urllib.error.HTTPError as error:
        assert error.code == status, error
        return json.load(error)["error"]["message"]
    raise AssertionError(f"no error: {got}")


assert "empty" in refused(400, lambda: model.query(picture, " "))
stranger = moondream.vl(endpoint=endpoint, api_key="wrong-key")
assert "API key" in refused(401, lambda: stranger.caption(picture))
