"""A local vision-language model that puts pictures of people into words.

Nothing is downloaded: the model is a folder of safetensors files, and Hugging Face libraries are told to stay offline.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tagclip.runtime.errors import ConfigError, MissingExtraError, one_line
from tagclip.train.synth.styles import MAX_WORDS

_NEW_TOKENS = 96  # more than 60 words need in few tokenizers; the rest is cut in `clean`


class Style(NamedTuple):
    """How a model is asked: `instruction` of one that talks, `opening` of one that only goes on with a text."""

    instruction: str
    opening: str


_TASK = (
    "Describe the person in the middle of this picture: clothes with their colours, shoes, bags, headwear, hair. "
    "Say only what can be seen. Do not speak of the face, of skin or of origin. "
)
STYLES = (
    Style(_TASK + "Answer with one sentence.", "a person wearing"),
    Style(_TASK + "Answer in telegram style: a few words a thing, divided by commas, no verbs.", "person,"),
    Style(
        _TASK + "Answer as a police report would, in at most three short sentences.",
        "the person is dressed in",
    ),
)


class Describer(Protocol):
    """Whatever puts a picture into words."""

    def __call__(self, image: NDArray[np.uint8], style: Style, seed: int) -> str:
        """A description of `image`, RGB uint8 (H, W, 3); the same for the same seed."""
        ...


class LocalModel:
    """An image-to-text model of `transformers` in a local folder, a Describer."""

    def __init__(self, folder: Path):
        """Load model and processor; on a GPU if there is one.

        Raises:
            ConfigError: no folder, no safetensors in it, or not a model that takes a picture and gives text.
            MissingExtraError: transformers or torch is not installed.
        """
        check_model(folder)
        # Before the import: these libraries read it once. `local_files_only` below says it again.
        os.environ["HF_HUB_OFFLINE"] = "1"
        try:
            import torch
            from transformers import AutoModelForImageTextToText, AutoProcessor
            from transformers.utils.logging import disable_progress_bar
        except ImportError as error:
            raise MissingExtraError(
                f"captions by a model need transformers ({error}): pip install 'tagclip[train,vlm]'"
            ) from error
        disable_progress_bar()  # there is one of ours
        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._processor: Any = AutoProcessor.from_pretrained(str(folder), **safe)
            model: Any = AutoModelForImageTextToText.from_pretrained(
                str(folder), use_safetensors=True, **safe
            )
        except Exception as error:  # the libraries raise whatever a broken file leads to
            raise ConfigError(
                f"--model {folder} cannot be loaded as an image-to-text model ({one_line(str(error))[:300]}); expected "
                "what save_pretrained writes: config.json, processor, tokenizer and safetensors"
            ) from error
        self._folder = folder
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.eval().to(self._device)
        self._talks = bool(getattr(self._processor, "chat_template", None))

    def __call__(self, image: NDArray[np.uint8], style: Style, seed: int) -> str:
        """See Describer.

        Raises:
            ConfigError: the model takes other inputs, or there is too little memory.
        """
        import torch

        try:
            text = self._asked(style)
            inputs = self._processor(images=image, text=text, return_tensors="pt")
            inputs = inputs.to(
                self._device, self._model.dtype
            )  # the picture only; numbers of tokens stay whole
            with torch.random.fork_rng(), torch.inference_mode():
                torch.manual_seed(seed)
                ids = self._model.generate(**inputs, max_new_tokens=_NEW_TOKENS, do_sample=True, top_p=0.9)[0]
        except Exception as error:  # as above
            raise ConfigError(
                f"--model {self._folder} cannot describe a picture ({one_line(str(error))[:300]}); expected one that "
                "takes a picture and a text; choose another model"
            ) from error
        if self._talks:  # the question comes first; a model with an encoder gives the answer alone
            asked = inputs["input_ids"][0]
            ids = ids[len(asked) :] if torch.equal(ids[: len(asked)], asked) else ids
            return str(self._processor.decode(ids, skip_special_tokens=True))
        said = str(self._processor.decode(ids, skip_special_tokens=True)).strip()
        begun = re.sub(r"\W", "", said.lower()).startswith(re.sub(r"\W", "", style.opening))
        return said if begun else f"{style.opening} {said}"

    def _asked(self, style: Style) -> str:
        if not self._talks:
            return style.opening
        content = [{"type": "image"}, {"type": "text", "text": style.instruction}]
        turn = [{"role": "user", "content": content}]
        return str(self._processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))


def check_model(folder: Path) -> None:
    """Whether a folder looks like a model that may be loaded; to ask before long work.

    Raises:
        ConfigError: it does not; the message says what is missing.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"--model {folder}: expected a local folder with config.json, found none; nothing is downloaded, so fetch "
            "the model first"
        )
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
        raise ConfigError(
            f"--model {folder}: expected weights in *.safetensors, found {', '.join(pickled) or 'none'}; pickled "
            "weights can run code and are not loaded: save the model anew with save_pretrained"
        )


def clean(text: str) -> str:
    """An answer on one line of at most 60 words (whole sentences if they fit), less list marks and quotes around it."""
    lines = (re.sub(r"^\s*(?:[-*\u2022#>]+|\d+[.)])\s*", "", line) for line in text.splitlines())
    line = one_line(" ".join(lines)).replace("*", "").strip(" \"'`\u201c\u201d")
    words = line.split()
    if len(words) <= MAX_WORDS:
        return " ".join(words)
    cut = " ".join(words[:MAX_WORDS])
    whole = re.match(r".*[.!?](?=\s|$)", cut)
    return whole[0] if whole else cut.rstrip(",;: ")
