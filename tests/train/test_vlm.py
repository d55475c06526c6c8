"""Captions by a model: real architectures of transformers, tiny and untrained, from a local folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("matplotlib")

from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tagclip.runtime.errors import ConfigError, DataError, OutputError
from tagclip.train.datasets.caption_file import read_captions
from tagclip.train.synth import describe as describing
from tagclip.train.synth import vlm
from tagclip.train.synth.annotate import describe
from tagclip.train.synth.appearance import from_json, to_json
from tagclip.train.synth.cli import synth
from tagclip.train.synth.contradict import contradiction
from tagclip.train.synth.people import sample_appearance

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [BOS] [EOS] <image> a person wearing , the is dressed in red blue black white jacket top "
    "jeans shoes trousers woman man boots"
).split()
TINY = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} "
    "{% endif %}{% endfor %}{% endfor %}"
)


def tokenizer() -> Any:
    core = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "BOS", "EOS")}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, additional_special_tokens=["<image>"], **names
    )


def make_blip(folder: Path) -> None:
    spread = {"initializer_range": 0.5}  # by default next to nothing, and a picture would change no word
    text = TINY | spread | {"vocab_size": len(WORDS), "encoder_hidden_size": 16, "projection_dim": 16}
    text |= {"bos_token_id": 4, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = transformers.BlipConfig(
        text_config=text,
        vision_config=TINY | spread | {"image_size": 32, "patch_size": 16},
        projection_dim=16,
        image_text_hidden_size=16,
    )
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    pictures = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    transformers.BlipProcessor(pictures, tokenizer()).save_pretrained(folder)


def make_llava(folder: Path) -> None:
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(image_size=32, patch_size=16, projection_dim=16, **TINY),
        text_config=transformers.LlamaConfig(
            vocab_size=len(WORDS),
            num_key_value_heads=2,
            bos_token_id=4,
            eos_token_id=5,
            pad_token_id=0,
            max_position_embeddings=512,
            **TINY,
        ),
        image_token_index=6,
        image_token_id=6,
        vision_feature_layer=-1,
        image_seq_length=4,
    )
    # Half precision, as such models are given away.
    transformers.LlavaForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer(),
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


MAKERS: dict[str, Callable[[Path], None]] = {"blip": make_blip, "llava": make_llava}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, make in MAKERS.items():
        make(folder / name)
    return {name: folder / name for name in MAKERS}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder as `tagclip synth crops` writes it, the pictures aside: two people a split, two pictures each."""
    folder, rng = tmp_path / "data", np.random.default_rng(5)
    for n, split in enumerate(("train", "val", "test")):
        rows = []
        for k in range(4):
            attributes = to_json(sample_appearance(np.random.default_rng(100 * n + k // 2)))
            path = folder / "images" / split / f"{n}_{k}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), rng.integers(0, 255, (48, 20, 3), np.uint8))
            row = {
                "file_path": f"{split}/{path.name}",
                "id": 2 * n + k // 2,
                "cam_id": k % 2,
                "captions": ["x"],
            }
            visible = dict.fromkeys(("top", "shoes", "hair", "sleeves"), 0.2)
            rows.append(row | {"attributes": attributes, "visible": visible, "elevation_deg": 10.0})
        (folder / f"{split}_reid.json").write_text(json.dumps(rows))
    return folder


class Parrot:
    """A Describer that says what is true, then what is not, of the rows in turn; counts how often it is asked."""

    def __init__(self, folder: Path, fail_at: int = 10**9):
        splits = (json.loads((folder / f"{s}_reid.json").read_text()) for s in ("train", "val", "test"))
        self.rows, self.asked, self.fail_at = [row for rows in splits for row in rows], 0, fail_at
        self.start = 0

    def __call__(self, image: NDArray[np.uint8], style: vlm.Style, seed: int) -> str:
        if self.asked == self.fail_at:
            raise KeyboardInterrupt
        row = self.rows[self.start + self.asked // 2]
        self.asked += 1
        if self.asked % 2:
            return describe(row, 0, 1, complete=True)[0]
        return "A person with an umbrella, a suitcase and a turban."


@pytest.mark.parametrize("name", MAKERS)
def test_a_local_model_is_run(
    tiny: dict[str, Path], data: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = {path: path.read_bytes() for path in data.glob("*_reid.json")}
    result = CliRunner().invoke(
        synth,
        ["describe", str(data), "--model", str(tiny[name]), "--captions", "2", "--json"],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    counts = json.loads(result.stdout.splitlines()[-1])
    assert sum(counts.values()) == 24
    found = json.loads((data / describing.CAPTIONS).read_text())
    assert sum(map(len, found.values())) == counts["accepted"]
    for split in ("train", "val", "test"):
        for row in json.loads((data / f"{split}_reid.json").read_text()):
            for text in found.get(row["file_path"], []):
                assert contradiction(text, from_json(row["attributes"]), row["visible"]) is None
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("name", MAKERS)
def test_words_depend_on_picture_and_seed(tiny: dict[str, Path], name: str) -> None:
    model, style = vlm.LocalModel(tiny[name]), vlm.STYLES[0]
    dark, light = np.zeros((60, 30, 3), np.uint8), np.full((60, 30, 3), 255, np.uint8)
    texts = [model(dark, style, seed) for seed in range(4)]
    assert texts == [model(dark, style, seed) for seed in range(4)]
    assert len(set(texts)) > 1
    assert [model(light, style, seed) for seed in range(4)] != texts
    for text in texts:
        if name == "blip":
            assert text.startswith("a person wearing ")
            assert "a person wearing a person" not in text
        else:
            assert "Describe" not in text and "<image>" not in text


def test_what_contradicts_is_dropped_and_counted(tiny: dict[str, Path], data: Path) -> None:
    parrot = Parrot(data)
    counts = describing.describe_folder(data, tiny["blip"], 2, load=lambda _: parrot)
    assert counts["accepted"] >= 11 and counts["protected"] == 12
    assert set(read_captions(data / describing.CAPTIONS)) <= {row["file_path"] for row in parrot.rows}
    assert all(
        "umbrella" not in text
        for texts in read_captions(data / describing.CAPTIONS).values()
        for text in texts
    )


def test_goes_on_after_an_interruption(
    tiny: dict[str, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(describing, "SAVE_EVERY", 2)
    shutil.copytree(data, tmp_path / "whole")
    whole = describing.describe_folder(tmp_path / "whole", tiny["blip"], 2, load=lambda _: Parrot(data))
    with pytest.raises(KeyboardInterrupt):
        describing.describe_folder(data, tiny["blip"], 2, load=lambda _: Parrot(data, fail_at=11))
    rest = Parrot(data)
    rest.start = 5
    done: list[int] = []
    counts = describing.describe_folder(
        data, tiny["blip"], 2, 0, lambda k, _: done.append(k), load=lambda _: rest
    )
    assert done == list(range(5, 13)) and rest.asked == 14
    assert counts == whole
    assert (data / describing.CAPTIONS).read_bytes() == (
        tmp_path / "whole" / describing.CAPTIONS
    ).read_bytes()

    def never(_: Path) -> Parrot:
        raise AssertionError("nothing is left to do")

    assert describing.describe_folder(data, tiny["blip"], 2, load=never) == whole
    with pytest.raises(OutputError, match=r"captions 2 \(now 3\)"):
        describing.describe_folder(data, tiny["blip"], 3, load=never)


def test_a_model_that_may_not_be_loaded_is_named(tiny: dict[str, Path], data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is downloaded"):
        describing.describe_folder(data, tmp_path / "absent")
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny["blip"], pickled)
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin"):
        describing.describe_folder(data, pickled)
    broken = tmp_path / "broken"
    shutil.copytree(tiny["blip"], broken)
    (broken / "model.safetensors").write_bytes(b"\0" * 50)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        describing.describe_folder(data, broken)
    assert not (data / describing.CAPTIONS).exists() and not (data / describing.PROGRESS).exists()


def test_code_that_comes_with_a_model_is_not_run(tiny: dict[str, Path], data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own_code"
    shutil.copytree(tiny["blip"], folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {k: "own.Own" for k in ("AutoConfig", "AutoModelForImageTextToText")},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nOwn = None\n")
    with pytest.raises(ConfigError):
        describing.describe_folder(data, folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("break_it", ["no file", "no attributes", "outside"])
def test_other_folders_are_refused(tiny: dict[str, Path], data: Path, break_it: str) -> None:
    path = data / "val_reid.json"
    rows = json.loads(path.read_text())
    if break_it == "no attributes":
        del rows[1]["attributes"]
    rows[0]["file_path"] = "../../secret.jpg" if break_it == "outside" else rows[0]["file_path"]
    path.unlink() if break_it == "no file" else path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"val_reid\.json"):
        describing.describe_folder(data, tiny["blip"], load=lambda _: Parrot(data))


def test_answers_are_cleaned() -> None:
    assert vlm.clean(' "A man\n in **red**.\u201d ') == "A man in red."
    assert vlm.clean("- red coat\n- blue jeans") == "red coat blue jeans"
    assert vlm.clean("A man in red. " + "very " * 80) == "A man in red."
    assert len(vlm.clean("red " * 200).split()) == 60
    assert vlm.clean(" \n ") == ""
