"""Models of the transformers library: a local directory with config.json and safetensors, or a .gguf file."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from pathlib import Path
from typing import Any

import torch

from regauge.checkpoint.inputs import example_inputs
from regauge.checkpoint.opened import Opened, Sample
from regauge.checkpoint.skeleton import parameters_on_meta
from regauge.checkpoint.weights import check_finite, read_header, read_json, safetensors_files
from regauge.errors import InputError

EXPORTABLE_EXPERTS = "batched_mm"  # the default routes tokens through an operator that only that library knows
SMALL = {
    "width": 12,
    "layers": 2,
    "vocabulary": 31,
    "positions": 11,
}  # about 3,000 parameters: a proof of tightness takes seconds
NEED = "pip install 'regauge[hf]'"


def open_pretrained(path: Path) -> Opened:
    """A Hugging Face directory, or a .gguf file. Nothing is read until one of the three ways to build it is called."""
    folder, gguf = locate(path)

    @cache
    def config() -> Any:
        return read_config(folder, gguf)

    def skeleton() -> Sample:
        with quiet(), parameters_on_meta():
            model = build(config(), folder)
        return Sample(model, kwargs=example_inputs(model, folder))

    def loaded() -> Sample:
        model, notes = load(config(), folder, gguf)
        return Sample(model, kwargs=example_inputs(model, folder), notes=notes)

    def small() -> Sample:
        model = build_small(config(), folder)
        inputs = example_inputs(model, whole=True)
        try:
            with torch.no_grad():
                model(**inputs)
        except IndexError:  # some position tables keep their first rows for themselves
            inputs = example_inputs(model)
        return Sample(model, kwargs=inputs)

    return Opened(spec=str(path), kind="pretrained", skeleton=skeleton, loaded=loaded, small=small)


def locate(path: Path) -> tuple[Path, str | None]:
    """The directory, and the name of the .gguf file in it if that is what there is to read."""
    if path.is_file():
        return path.parent, path.name
    if (path / "config.json").is_file():
        return path, None
    match sorted(path.glob("*.gguf")):
        case [only]:
            return path, only.name
        case []:
            raise InputError(f"{path}: holds neither config.json nor a .gguf file: name the directory of a model")
        case several:
            raise InputError(f"{path}: holds {len(several)} .gguf files ({several[0].name}, ...): name one of them")


def read_config(folder: Path, gguf: str | None) -> Any:
    """The configuration, as transformers reads it; code that a directory brings along is never run."""
    transformers = library()
    if gguf is None and "model_type" not in read_json(folder / "config.json"):
        raise InputError(
            f"{folder / 'config.json'}: has no model_type, so it is no configuration of a transformers model: "
            "name another directory, or give package.module:factory"
        )
    try:
        with quiet():
            extra = {} if gguf is None else {"gguf_file": gguf}
            return transformers.AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, **extra
            )
    except Exception as error:
        what = folder / (gguf or "config.json")
        raise InputError(
            f"{what}: transformers {transformers.__version__} cannot read it ({first_line(error)}): the file is "
            "damaged, or its model type is newer than this library or brings code of its own; then give "
            "package.module:factory"
        ) from error


def library() -> Any:
    try:
        import transformers
    except ImportError:
        raise InputError(f"reading a Hugging Face model needs transformers, which is not installed: {NEED}") from None
    return transformers


def model_class(config: Any) -> Any:
    """The class that the configuration names, or else the one that transformers registers for its type."""
    transformers = library()
    for name in config.architectures or ():
        if (found := getattr(transformers, name, None)) is not None:
            return found
    for auto in (transformers.AutoModelForCausalLM, transformers.AutoModel):
        if type(config) in auto._model_mapping:
            found = auto._model_mapping[type(config)]
            return found[0] if isinstance(found, tuple) else found
    raise InputError(
        f"transformers {transformers.__version__} has no model for the type {config.model_type}: give "
        "package.module:factory"
    )


def build(config: Any, folder: Path) -> Any:
    """The model without its weights, in eval mode."""
    made = model_class(config)
    try:
        return made._from_config(prepared(config), dtype=config.dtype or torch.get_default_dtype()).eval()
    except ImportError as error:
        raise InputError(
            f"{folder}: {made.__name__} needs a library that is not installed ({first_line(error)}): install it"
        ) from error
    except Exception as error:
        raise InputError(
            f"{folder}: {made.__name__} cannot be built from this configuration ({first_line(error)}): correct "
            "config.json"
        ) from error


def build_small(config: Any, folder: Path) -> Any:
    """A tiny copy of the same make with random parameters, in single precision."""
    from regauge.checkpoint.shrink import shrink_config

    try:
        tiny = shrink_config(config, **SMALL)
    except Exception as error:
        raise InputError(
            f"{folder}: its configuration cannot be shrunk ({first_line(error)}): give package.module:factory with a "
            "small copy"
        ) from error
    torch.manual_seed(0)
    with quiet():
        return build(tiny, folder).float()


def prepared(config: Any) -> Any:
    """A copy that asks for what can be traced: no cache, experts as plain products."""
    config = copy.deepcopy(config)
    for part in (config, config.get_text_config()):
        part.use_cache = False
    config._experts_implementation = EXPORTABLE_EXPERTS
    return config


def load(config: Any, folder: Path, gguf: str | None) -> tuple[Any, tuple[str, ...]]:
    """The model with its weights, in the dtype of the file, and notes. Raises InputError unless all weights are
    there, have the shapes of the configuration, and are finite."""
    source = folder / gguf if gguf else folder
    if gguf is None:
        for file in safetensors_files(folder):
            read_header(file)
    try:
        with quiet():
            extra = {} if gguf is None else {"gguf_file": gguf}
            model, info = model_class(config).from_pretrained(
                folder,
                config=prepared(config),
                dtype="auto",
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                use_safetensors=gguf is None,
                **extra,
            )
    except ImportError as error:
        raise InputError(
            f"{source}: reading it needs a library that is not installed ({first_line(error)}): {NEED}"
        ) from error
    except Exception as error:
        missing = " (pip install 'regauge[hf]')" if "is required" in str(error) else ""
        raise InputError(
            f"{source}: the weights cannot be read ({first_line(error)}){missing}: download them again"
        ) from error
    complain_about_shapes(source, info["mismatched_keys"])
    complain_about_missing(source, info["missing_keys"])
    check_finite(model.state_dict().items(), str(source))
    return model.eval(), notes_about(info["unexpected_keys"])


def complain_about_shapes(source: Path, mismatched: set[tuple]) -> None:
    if mismatched:
        name, in_file, in_model = min(mismatched, key=lambda item: item[0])
        raise InputError(
            f"{source}: {len(mismatched)} tensor(s) do not fit config.json: {name} is {list(in_file)} in the file "
            f"and {list(in_model)} in the model: the configuration and the weights are of two models"
        )


def complain_about_missing(source: Path, missing: set[str]) -> None:
    if missing:
        raise InputError(
            f"{source}: {len(missing)} tensor(s) of the model are in no file, the first is {min(missing)}: the "
            "download is incomplete, or config.json names another architecture than the weights have"
        )


def notes_about(unexpected: set[str]) -> tuple[str, ...]:
    if not unexpected:
        return ()
    return (f"{len(unexpected)} tensor(s) of the file are not part of the model, the first is {min(unexpected)}",)


def first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return text[:200] if text else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the library's own log and progress bars: what matters is said as an error or a note."""
    logging = library().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):  # the bar of the .gguf reader listens to no switch
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
