"""Whole bodies, addresses, headers and forms."""

import json

from tests.hostile.promise import CANARY
from tests.hostile.values import nested

__all__ = [
    "BODIES",
    "CONTENT_TYPES",
    "COOKIES",
    "FORMS",
    "HEADERS",
    "HOSTS",
    "KEYS",
    "METHODS",
    "MULTIPARTS",
    "PATHS",
    "PREFLIGHTS",
    "QUERIES",
    "RAW_QUERIES",
    "READABLE",
    "TORN_MULTIPARTS",
]

_C = CANARY.encode()

# fmt: off
# --- Bodies -------------------------------------------------------------------------------------------------------------

_NOTE = json.dumps({"title": CANARY})
_TITLE = b'"title":"' + _C + b'"'

BODIES: tuple[bytes, ...] = (
    # no JSON, or not to the end
    b"", b" ", b"\0", b"{", b"}", b"[", b'{"title"', b'{"title":', b'{"title":"x', b"{" + _TITLE + b",}", b"{" + _TITLE + b"} x", b"{}{}",
    b"{'title':'" + _C + b"'}", b"{title:1}", b"undefined", b"nul", b"//", b"{" + _TITLE + b"/*", b"\x1f\x8b\x08\x00", b"title=" + _C,
    b'{"title":"\n"}', b'{"title":"\x00"}', b'{"title":"' + _C + b'\x1b"}', rb'{"title":"\x"}', rb'{"title":"\u12"}',
    rb'{"title":"\ud800\u"}',
    # another type of JSON
    b"null", b"true", b"0", b"-0.0", b"NaN", b"1e400", b'""', b'"' + _C + b'"', b"[]", b"{}", b"[{}]", b'["title"]',
    b"[" + b"{}," * 500 + b"{}]",
    # names
    b'{"' + _C + b'":1}', b'{"":1}', b'{"title":null}', b'{"TITLE":"x"}', rb'{"\u0074itle":1}', rb'{"title\u0000":1}', rb'{"\ud800":1}',
    b'{"title":1,"title":"' + _C + b'","title":null}', b'{"id":7,"created_at":"' + _C + b'","title":1}', b'{"__class__":{},"title":[]}',
    b'{"__proto__":{"title":"x"}}', b'{"title":{"$ne":null}}', b'{"%s":1}' % (b"k" * 100_000), b'{"title":["%s"]}' % (b"v" * 100_000),
    b"{" + b",".join(b'"%d":1' % number for number in range(2000)) + b"}",
    # encodings
    b"\xff", b'{"title":"\xff"}', b'{"\xc3\x28":1}', b'{"title":"\xed\xa0\x80"}', b'{"title":"\xc0\x80"}',
    b'{"title":"\xf4\x90\x80\x80"}',
    b"\xef\xbb\xbf" + b"[]", b"\xef\xbb\xbf\xef\xbb\xbf" + _NOTE.encode(), b"\xff\xfe\x00\xd8", b"\xfe\xff\xd8\x00",
    b"\xff\xfe\x00\x00\x00\xd8\x00\x00", _NOTE.encode("utf-16")[:-1], _NOTE.encode("utf-32")[:-1], b"\0\0\0[", b"[\0\0\0", b"\0" * 1000,
    '"\ud800"'.encode("utf-16-le", "surrogatepass"),
    # too deep, too long
    nested(b"[", 100_000, b"]"), nested(b'{"a":', 100_000, b"}", b"1"), nested(b'[{"a":', 50_000, b"}]"), b"[" * 100_000,
    b'{"a":' * 100_000, nested(b'{"title":', 900, b"}", b"1"), nested(b"[", 900, b"]"), b'{"title":%s}' % nested(b"[", 900, b"]"),
    b'{"title":%s}' % nested(b'{"a":', 900, b"}", b"1"),
    b"1" * 5000, b'{"title":%s}' % (b"1" * 5000), b'{"title":%s}' % (b"1" * 4000), b'{"title":-1e%s}' % (b"9" * 4000),
    b'{"a":%s}' % (b"0." + b"1" * 5000),
)
"""Whole bodies that no route of a model with text takes."""

READABLE: tuple[bytes, ...] = (
    _NOTE.encode("utf-8-sig"), _NOTE.encode("utf-16"), _NOTE.encode("utf-16-be"), _NOTE.encode("utf-32"),
    b" \n\t\r" + _NOTE.encode() + b" \n",
    b'{"title":"a","title":"b"}', b'{"title":"x","data":NaN}', b'{"title":"x","a":%s}' % nested(b"[", 900, b"]"),
)
"""Bodies that a lenient reader takes for a note."""

CONTENT_TYPES: tuple[bytes, ...] = (
    b"", b" ", b";", b"/", b"json", b"application", b"application/", b"/json", b"text/json", b"text/plain", b"text/html",
    b"application/xml",
    b"application/octet-stream", b"application/x-www-form-urlencoded", b"multipart/form-data", b"multipart/form-data; boundary=",
    b"image/svg+xml",
    b"APPLICATION/JSON", b"application/problem+json", b"application/vnd." + _C + b"+json", b"application/+json", b"application/json;",
    b"*/*", b"application/json; charset=" + _C, b"application/json; charset=utf-16", b"application/json; charset=utf-7",
    b'application/json; charset="', b"application/json, text/plain", b"application/json\x00", b"application/json; a*0=b; a*1=c",
    b"application/json; charset*=utf-8''%ff",
    b"\xff\xfe", b"application/\xff+json", b"a" * 10_000, b"application/json; " + b"a=b; " * 5000, b"application/json" + b";" * 10_000,
    b"application/jsonl", b"application/json-seq", b"application/x-ndjson", b"application/json+zip", b"=?utf-8?q?application/json?=",
)

# --- Addresses ----------------------------------------------------------------------------------------------------------

KEYS: tuple[bytes, ...] = (
    b"%00", b"1%00", b"%2F", b"1%2F", b"%2f..%2f", b"%ff", b"%ED%A0%80", b"%C0%80", b"%ZZ", b"%", b"%2", b"%%31", b"%25", b"..",
    b"%2e%2e", b".",
    b";", b"1;v=2", b"1%3B", b"1%3F", b"1%23", b"1%0d%0aX-A:%20b", b"%20", b"%09", b"1+1", b"%0a1", b"1,2", b"[1]", b"{1}", b"{id}",
    b"*", b"$",
    b"-0", b"0", b"-1", b"1.0", b"1.5", b"1e3", b"0x1", b"1_000", b"NaN", b"Infinity", b"-inf", b"null", b"true", b"undefined",
    b"%E2%91%A0",
    b"%D9%A2", b"%EF%BC%92", b"2147483647", b"2147483648", b"-2147483649", b"9223372036854775808", b"1" * 30, b"9" * 4300, b"9" * 5000,
    _C, _C + b"%00", b"1/" + _C, b"a" * 100_000, b"%F0%9F%98%80" * 60, b"x" * 51, b"'%20OR%201=1--", b"%3Cscript%3E", b"1/", b"/1", b"//",
)

PATHS: tuple[bytes, ...] = (
    b"/", b"//", b"///notes", b"/notes//1", b"/notes/../notes", b"/notes/%2e%2e/notes", b"/notes%2F1", b"/%6eotes", b"/NOTES",
    b"/notes%00", b"/notes ",
    b"/notes;a=b", b"/notes/1;a", b"\\notes", b"/\\" + _C, b"//" + _C + b"/notes", b"/docs/%00", b"/health/" + _C,
    b"/api/v1/openapi.json%00",
    b"*", b"notes", b"http://" + _C + b"/notes", b"/%ff", b"/%00", b"/%0d%0a", b"/" + _C, b"/" + b"a" * 100_000, b"/" * 10_000,
    b"/notes/" + b"../" * 5000,
    b"/notes" + b"/1" * 10_000, b"/" + b"%f0%9f%98%80" * 10_000, b"/.git/config", b"/notes/1/../../../etc/passwd", b"/%c0%ae%c0%ae/",
)

QUERIES: tuple[bytes, ...] = (
    b"skip=-1", b"skip=2147483648", b"skip=" + b"9" * 5000, b"skip=-0", b"skip=1.0", b"skip=1e2", b"skip=NaN", b"skip=", b"skip",
    b"skip=%00",
    b"skip=%ff", b"skip=\xff", b"skip=1\0", b"limit=0", b"limit=-1", b"limit=1001", b"limit=%2B5", b"limit=+5", b"limit=%EF%BC%95",
    b"limit=1_0", b"skip=1&skip=2", b"skip=x&skip=1", b"skip=1&skip=x", b"skip[]=1", b"skip[$gt]=1", b"skip%5B0%5D=1", b"skip.a=1",
    b"skip=1;limit=2", b"skip=1,2",
    b"&&&&", b"=", b"=1", b"&=&", b"%00=1", b"%ff=1", b"\xff=1", b"%ED%A0%80=1", b"%=1", b"%zz=1", b"%73kip=1", b"?skip=1",
    b"skip=1?", b"skip=1#" + _C,
    _C + b"=1", b"skip=" + _C, b"title=" + _C, b"a[b][c]=" + _C, b"filter=" + b"(" * 5000, b"skip=2147483647&limit=1000",
    b"sort=" + _C + b",-" + _C,
    b"a" * 100_000, b"skip=" + b"a" * 100_000, b"&".join(b"a%d=%d" % (n, n) for n in range(10_000)), b"skip=1&" * 10_000, b"%" * 10_000,
)

RAW_QUERIES = (b"skip=\xff&skip=0", b"limit=1&limit=\xed\xa0\x80&limit=1")
"""Bytes that are not UTF-8, beside a value that replaces them."""

METHODS: tuple[str, ...] = (
    "HEAD", "OPTIONS", "TRACE", "PUT", "CONNECT", "FOO", "get", "Post", "QUERY", "PROPFIND", "PRI", "M-SEARCH", CANARY.upper(),
    "A" * 5000,
)

# --- Headers ------------------------------------------------------------------------------------------------------------

_ODD = (
    b"", b" ", b"\xff", b"\xed\xa0\x80", b"\0", b",", b";", b"=", b'"', b"*", b"-1", b"9" * 5000, _C, b"\t" + _C, b"a" * 100_000,
    b"a," * 10_000, b"%00",
)

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    # A request id of safe characters is taken and returned, as documented.
    *((b"x-request-id", value + b"%") for value in _ODD),
    *(
        (name, value)
        for name in (b"accept", b"authorization", b"if-match", b"if-none-match", b"range", b"origin")
        for value in _ODD
    ),
    *((b"range", value) for value in (b"bytes=0-0", b"bytes=-1", b"bytes=9999999999999999999-", b"bytes=" + b"0-0," * 5000, b"items=0-1")),
    *((name, value) for name in (b"if-match", b"if-none-match") for value in (b'"1"', b'W/"1"', b'"' + _C, b'"1", "2"', b'"\xff"')),
    *(
        (name, value)
        for name in (b"if-modified-since", b"if-unmodified-since", b"if-range", b"date")
        for value in (_C, b"Thu, 01 Jan 0000 00:00:00 GMT")
    ),
    *((b"accept", value) for value in (b"text/html", b"image/*;q=NaN", b"application/xml;q=1e400", b"*/*;q=0")),
    *((b"accept-encoding", value) for value in (b"gzip;q=NaN", b"*;q=0", _C)),
    *((b"accept-language", value) for value in (_C, b"\xff", b"-" * 1000)),
    *((b"content-encoding", value) for value in (b"gzip", b"br", _C)),
    *((b"content-length", value) for value in (b"-1", b"9" * 5000, _C, b"1, 1")),
    *((b"expect", value) for value in (b"100-continue", _C)),
    *((b"authorization", value) for value in (b"Bearer", b"Bearer " + _C, b"Basic \xff", b"Basic " + _C, b"Digest " + b'a="b",' * 1000)),
    *((b"x-forwarded-for", value) for value in (_C, b"\xff", b"127.0.0.1," * 5000)),
    (b"x-forwarded-proto", _C), (b"x-forwarded-host", _C), (b"x-forwarded-prefix", b"//" + _C), (b"forwarded", b"for=" + _C),
    (b"x-http-method-override", b"DELETE"),
    *(
        (b"traceparent", value)
        for value in (_C, b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b"\xff", b"ff-" + b"f" * 32 + b"-" + b"f" * 16 + b"-ff")
    ),
    *((b"tracestate", value) for value in (_C + b"=" + _C, b"a=b," * 1000)),
    *((b"idempotency-key", value) for value in (_C, b"\xff", b"a" * 10_000)),
    (b"\xff", b"x"), (b"", b"x"), (b"a" * 10_000, b"x"), (b"upgrade", b"websocket"), (b"connection", b"upgrade"), (b"te", b"trailers"),
)

HOSTS: tuple[bytes, ...] = (
    b"", b"[", b"[::1", b"[::1]", b"[" + _C + b"]", b"\xff", b"\0", b"a:b", b"test:99999999", b"test:-1", b"test:", b":",
    b"user:pw@" + _C, b"a b", b"a/b", b"a?b", b"a#b", b"a\\b", _C, _C + b":80", b"a," + _C, b"*", b"%00", b"..", b"a" * 100_000,
    "b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher".encode(), b"xn--" + b"\xff",
)

COOKIES: tuple[bytes, ...] = (
    b"", b";", b"=", b"visits", b"visits=", b"visits=" + _C, b"visits=1; visits=x", b"visits=x; visits=1", b'visits="',
    b'visits="\\400"', b"visits=\xff",
    b'visits="\\012\\777"', b"visits=\0", b"visits=" + b"9" * 5000, b"$Version=1; visits=1.5", b"visits=1; name=\xff\xfe",
    rb'visits=1; name="\355\240\200"',
    b"; " * 10_000, b"a=b; " * 10_000, b"visits=" + b"1" * 100_000, b"visits[]=1", b"__Host-visits=1", b"visits=%31", b"visits=1e3",
    b"visits=NaN",
)

PREFLIGHTS = [
    ((b"origin", origin), (b"access-control-request-method", method), (b"access-control-request-headers", _C))
    for origin in (b"http://localhost:3000", b"http://" + _C, b"\xff", b"null", b"a" * 10_000)
    for method in (b"GET", b"FOO", _C, b"\xff")
]

# --- Forms --------------------------------------------------------------------------------------------------------------

FORMS: tuple[bytes, ...] = (
    b"", b"&", b"=", b"=&=", b"username", b"username=", b"username=a&age=", b"username=a&age=" + _C, b"username=a&age=" + b"9" * 5000,
    b"username=a&age=1e400",
    b"username=%ff&age=x", b"username=\xff&age=x", b"username=%00&age=x", b"username=%ED%A0%80&age=x", b"username=%&age=x",
    b"username=%zz&age=x", b"age=1&age=2", b"username[]=a", b"username.x=a", b"user%00name=a", _C + b"=" + _C, b"%ff=%ff", b"\xff\xfe=1",
    b"username=a;age=x", b"{" + _TITLE + b"}",
    b"&".join(b"%d=1" % number for number in range(2000)), b"a" * 100_000, b"age=" + b"a" * 100_000, b"&" * 100_000, b"=" * 100_000,
    b"age=1&" * 1500,
)


def _part(disposition: bytes, content: bytes = b"x", *more: bytes) -> bytes:
    lines = [b"--b", b"Content-Disposition: " + disposition, *more, b"", content]
    return b"\r\n".join(lines) + b"\r\n"


_FILE = b'form-data; name="file"; filename="' + _C + b'"'
_END = b"--b--\r\n"

MULTIPARTS: tuple[tuple[bytes, bytes], ...] = (
    *(
        (value, _part(_FILE) + _END)
        for value in (
            b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary=c",
            b"multipart/form-data; boundary=\xff",
        )
    ),
    *(
        (value, _part(_FILE) + _END)
        for value in (
            b"multipart/form-data; boundary=" + b"b" * 10_000, b"multipart/mixed; boundary=b", b'multipart/form-data; boundary="b',
            b"multipart/form-data; boundary=" + _C,
        )
    ),
    *(
        (b"multipart/form-data; charset=%s; boundary=b" % charset, _part(b'form-data; name="note"', b"\xff\xfe") + _END)
        for charset in (b"utf-7", b"zip", b"\0", b"idna", b"unicode_escape", b"utf-16", _C)
    ),
    *(
        (b"multipart/form-data; boundary=b", body)
        for body in (
            *(
                b"", b"--", b"--b", b"--b\r\n", b"--b--", _END, b"\r\n--b--\r\n", b"x" * 1000, b"--b\r\n\r\n\r\n" + _END,
                b"--b\r\nx\r\n\r\nx\r\n" + _END,
            ),
            *(
                _part(b"form-data"), _part(b"form-data") + _END, _part(b'form-data; name=""') + _END,
                _part(b'form-data; name="' + _C + b'"') + _END,
            ),
            *(_part(b'form-data; name="file"', _C) + _END, _part(b'form-data; name="note"; filename="a"') + _END),
            *(
                _part(b'form-data; name="note"', b"\xff") + _END, _part(b'form-data; name="note"', b"\0") + _END,
                _part(b"form-data; name*=utf-8''%ff; filename*=x''%00") + _END,
            ),
            *(_part(_C) + _END, _part(b"\xff\xfe") + _END, _part(b"form-data; " + b"a=b; " * 2000) + _END),
            *(
                _part(b'form-data; name="note"', b"x", b"Content-Type: \xff", b"Content-Transfer-Encoding: base64") + _END,
                _part(b'form-data; name="note"', b"x", b"A" * 10_000 + b": b") + _END,
            ),
            *(
                _part(b'form-data; name="note"', b"x" * 1_100_000) + _END, _part(b'form-data; name="note"') * 1001 + _END,
                _part(_FILE) * 1001 + _END, _part(b'form-data; name="note"', b"x", *[b"A: b"] * 500) + _END,
            ),
        )
    ),
)

TORN_MULTIPARTS: tuple[tuple[bytes, bytes], ...] = tuple(
    (b"multipart/form-data; boundary=b", body)
    for body in (
        _part(_FILE), _part(_FILE)[:-2], _part(_FILE) + b"--x", _part(_FILE) + b"--b\r\n\xff\xff: x\r\n\r\n",
        _part(_FILE) + _part(_C) + _END,
    )
)
"""A file comes, and then something that is no part."""
# fmt: on
