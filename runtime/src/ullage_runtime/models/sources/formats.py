"""What the first bytes of a file say, so that a wrong file is known before the rest is fetched."""

from ullage_runtime.core.errors import LoadError, invalid_model

GGUF_MAGIC = b"GGUF"

HEAD_BYTES = 64
"""As many bytes as `checked_head` wants to see, unless the file is shorter."""

_OTHERS = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself; use the address that downloads the file",
    ),
    (b"PK\x03\x04", "a ZIP archive, as PyTorch writes checkpoints; convert it to GGUF"),
    (b"\x80\x02", "a Python pickle; convert the model to GGUF"),
    (b"\x1f\x8b", "gzip-compressed; unpack it first"),
    (b"ggml", "in llama.cpp's old GGML format; convert it to GGUF"),
    (b"ggjt", "in llama.cpp's old GGJT format; convert it to GGUF"),
    (b'{"', "JSON, probably an error message of the server"),
)
_SAFETENSORS = b'{"'
_SAFETENSORS_AT = 8


def checked_head(head: bytes, what: str, suffix: str = ".gguf") -> None:
    """Raise LoadError unless a file that begins with `head` may be what its suffix says.

    A model that is one file is a GGUF file, whatever its name; files beside weights may be
    anything.
    """
    match suffix:
        case ".gguf":
            fits = head.startswith(GGUF_MAGIC)
        case ".safetensors":
            fits = head[_SAFETENSORS_AT:].startswith(b"{")
        case ".onnx":
            fits = bool(head) and not _is_page(head) and not _known_other(head)
        case _:
            fits = True
    if not fits:
        raise _not_a_model(head, what, suffix)


def _is_page(head: bytes) -> bool:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml"))


def _known_other(head: bytes) -> str | None:
    return next((meaning for magic, meaning in _OTHERS if head.startswith(magic)), None)


def _not_a_model(head: bytes, what: str, suffix: str) -> LoadError:
    if not head:
        return invalid_model(f"{what} is empty")
    if _is_page(head):
        return invalid_model(
            f"{what} is a web page, not a model; servers send one instead of an error or a log-in "
            "form. Open the address in a browser and use the file's own download address"
        )
    if meaning := _known_other(head):
        return invalid_model(f"{what} is {meaning}")
    if suffix != ".gguf":
        return invalid_model(f"{what} is no {suffix} file: it begins with {head[:9].hex(' ')}")
    if head[_SAFETENSORS_AT:].startswith(_SAFETENSORS):
        return invalid_model(f"{what} is a safetensors file; convert the model to GGUF")
    return invalid_model(
        f"{what} is not a GGUF file: it begins with {head[:4].hex(' ')}, not with "
        f"{GGUF_MAGIC.hex(' ')} (GGUF)"
    )
