"""Small PDFs: sound, locked, and made to harm."""

import io
import zlib

from pypdf import PdfReader, PdfWriter


def pdf(text: str, title: str = "A title") -> bytes:
    """Return a PDF of one page that says a text."""
    words = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode()
    return _written(words, title, "")


def bomb(size: int) -> bytes:
    """Return a small PDF whose page is so many bytes long when it is unpacked, twice over."""
    packer = zlib.compressobj(9)
    part = b"q Q " * (1 << 18)
    packed = b"".join(packer.compress(part) for _ in range(size // len(part))) + packer.flush()
    return _written(zlib.compress(packed, 9), "A bomb", "/Filter [/FlateDecode /FlateDecode]")


def locked(data: bytes, password: str) -> bytes:
    """Return a PDF that nobody reads without its password."""
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(data)))
    writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _written(stream: bytes, title: str, how: str) -> bytes:
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 4 0 R /Resources %s >>"
        % b"<< /Font << /F1 5 0 R >> >>",
        b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(stream), how.encode(), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Title (%s) >>" % title.encode(),
    ]
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, each in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer << /Size %d /Root 1 0 R /Info 6 0 R >>\n" % (len(objects) + 1)
    out += b"startxref\n%d\n%%%%EOF\n" % start
    return bytes(out)
