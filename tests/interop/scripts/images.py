import os
import pathlib

import modal

here = pathlib.Path(__file__).parent
image = (
    modal.Image.debian_slim()
    .pip_install("roman")
    .env({"LEVEL": "3"})
    .run_commands("echo built > $HOME/marker || true")
    .add_local_python_source("helper")
    .add_local_dir(here / "data", "/root/data", ignore=["*.tmp", "!keep.tmp"])
)
app = modal.App("images", image=image)

with image.imports():
    import roman


@app.function()
def in_image(n: int):
    import helper

    names = sorted(os.listdir(here_or("/root/data")))
    return roman.toRoman(n), os.environ["LEVEL"], helper.shout("x"), names


def here_or(path):
    return path


@app.function(image=modal.Image.debian_slim())
def elsewhere():
    try:
        roman.toRoman(1)
    except NameError:
        return "no roman here"


@app.local_entrypoint()
def main():
    print("image", in_image.remote(14))
    print("other", elsewhere.remote())
