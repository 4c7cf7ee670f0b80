# ruff: noqa: E501 - the tables have a case a line
"""RFC 9112 section 6 and 7: how long a message is, and what two parsers could disagree on."""

from __future__ import annotations

from tests.harness.process import ServerProcess
from tests.http.cases import A, Case, E, R, run, table

HEAD = "POST /first HTTP/1.1\r\nHost: a\r\n"
NEXT = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = HEAD + "Transfer-Encoding: chunked\r\n\r\n"


def cl(value: str, body: str = "hello", more: str = "") -> str:
    """A request with that Content-Length."""
    return f"{HEAD}Content-Length: {value}\r\n{more}\r\n{body}"


def te(value: str, body: str = "5\r\nhello\r\n0\r\n\r\n", more: str = "") -> str:
    """A request with that Transfer-Encoding."""
    return f"{HEAD}Transfer-Encoding: {value}\r\n{more}\r\n{body}"


HELLO = ("POST", "/first", "hello")
EMPTY = ("POST", "/first", "")


@table(
    A("9112-6.2 length", cl("5"), HELLO, closes=False),
    A("9112-6.2 length zero", cl("0", ""), EMPTY, closes=False),
    A("9112-6.3 neither length nor encoding means no content", HEAD + "\r\n", EMPTY, closes=False),
    A("9110-8.6 leading zeros are digits", cl("005"), HELLO, closes=False),
    A("9110-5.5 white space around the value", cl(" \t 5 \t "), HELLO, closes=False),
    A("9112-6.3 content of a GET", "GET /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", ("GET", "/first", "hello")),
    A("9112-6.3 content of a DELETE", "DELETE /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", ("DELETE", "/first", "hello")),
    E("9110-8.6 the same length twice", cl("5", more="Content-Length: 5\r\n"), HELLO),
    E("9110-8.6 the same length twice in a list", cl("5, 5"), HELLO),
    R("9112-6.3 differing lengths", cl("5", more="Content-Length: 6\r\n")),
    R("9112-6.3 differing lengths, the second hides a request", cl("0", NEXT, f"Content-Length: {len(NEXT)}\r\n")),
    R("9112-6.3 differing lengths, the first hides a request", cl(str(len(NEXT)), NEXT, "Content-Length: 0\r\n")),
    R("9112-6.3 differing lengths in a list", cl("5, 6")),
    R("9112-6.3 list with an empty element", cl("5,")),
    R("9110-8.6 plus sign", cl("+5")),
    R("9110-8.6 minus sign", cl("-5")),
    R("9110-8.6 minus zero", cl("-0", "")),
    R("9110-8.6 hexadecimal", cl("0x5")),
    R("9110-8.6 inner space", cl("5 5")),
    R("9110-8.6 letter behind", cl("5a")),
    R("9110-8.6 empty", cl("")),
    R("9110-8.6 only white space", cl("   ")),
    R("9110-8.6 decimal point", cl("5.0")),
    R("9110-8.6 exponent", cl("1e1", "helloworld")),
    R("9110-8.6 underscore as Python has it", cl("1_0", "helloworld")),
    R("9110-8.6 semicolon", cl("5;")),
    R("9110-8.6 quoted", cl('"5"')),
    R("9110-8.6 superscript digit", cl("\xb2", "he")),
    R("9110-8.6 Arabic digit in UTF-8", cl("\xd9\xa5")),
    R("9110-8.6 vertical tab", cl("\x0b5")),
    R("9110-8.6 2**63", cl("9223372036854775808"), 400, 413),
    R("9110-8.6 2**64 less 1", cl("18446744073709551615"), 400, 413),
    R("9110-8.6 2**64", cl("18446744073709551616", ""), 400, 413),
    R("9110-8.6 2**64 and 5", cl("18446744073709551621"), 400, 413),
    R("9110-8.6 forty digits", cl("9" * 40, ""), 400, 413),
    R("9110-8.6 a letter behind thirty zeros", cl("0" * 30 + "x", "")),
)  # fmt: skip
def test_content_length(server: ServerProcess, case: Case) -> None:
    run(server, case)


def test_length_of_2_to_63_is_not_negative(server: ServerProcess) -> None:
    """It fits RFC 9110's grammar: refused, or read as what it says. Never as negative or as none."""
    with server.connect(timeout=3) as c:
        c.send(cl("9223372036854775813", "hello" + NEXT))
        c.half_close()
        rest = c.expect_close()
    assert b" 200 " not in rest, rest


@table(
    A("9112-7.1 chunked", te("chunked"), HELLO, closes=False),
    A("9112-7 coding names in any case", te("CHUNKED"), HELLO, closes=False),
    A("9112-7 coding names in mixed case", te("Chunked"), HELLO, closes=False),
    A("9110-5.5 white space around the value", te(" \t chunked \t "), HELLO, closes=False),
    A("9110-5.5 no white space in front of the value", HEAD + "Transfer-Encoding:chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", HELLO),
    A("9112-6.1 other spellings are other fields", cl("5", more="Transfer_Encoding: chunked\r\n"), HELLO, fields={"transfer_encoding": "chunked"}),
    R("9112-6.1 length and chunked", te("chunked", more="Content-Length: 5\r\n")),
    R("9112-6.1 length before chunked", cl("5", "5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n")),
    R("9112-6.1 length zero and chunked", cl("0", "0\r\n\r\n", "Transfer-Encoding: chunked\r\n")),
    R("9112-11.2 CL.TE hides a request", cl("4", "0\r\n\r\n" + NEXT, "Transfer-Encoding: chunked\r\n")),
    R("9112-11.2 TE.CL hides a request", te("chunked", f"{len(NEXT):x}\r\n{NEXT}\r\n0\r\n\r\n", "Content-Length: 4\r\n")),
    R("9112-11.2 length and an unknown coding", cl("5", more="Transfer-Encoding: x\r\n"), 400, 501),
    R("9112-11.2 length and identity", cl("5", more="Transfer-Encoding: identity\r\n"), 400, 501),
    R("9112-6.1 xchunked", te("xchunked"), 400, 501),
    R("9112-6.1 chunkedx", te("chunkedx"), 400, 501),
    R("9112-6.1 identity", te("identity", ""), 400, 501),
    R("9112-6.1 gzip alone", te("gzip", "x"), 400, 501),
    R("9112-6.1 gzip, chunked: not understood", te("gzip, chunked"), 400, 501),
    R("9112-6.1 chunked not last", te("chunked, gzip"), 400, 501),
    R("9112-6.1 chunked, identity", te("chunked, identity"), 400, 501),
    R("9112-6.1 chunked twice", te("chunked, chunked"), 400, 501),
    R("9112-6.1 chunked in two lines", te("chunked", more="Transfer-Encoding: chunked\r\n"), 400, 501),
    R("9112-6.1 second line hides the coding", te("chunked", more="Transfer-Encoding: identity\r\n"), 400, 501),
    R("9112-6.1 second line adds gzip", te("chunked", more="Transfer-Encoding: gzip\r\n"), 400, 501),
    R("9112-6.1 first line adds x", te("x", more="Transfer-Encoding: chunked\r\n"), 400, 501),
    R("9112-6.1 empty", te("", ""), 400, 501),
    R("9112-6.1 only a comma", te(",", ""), 400, 501),
    R("9112-7 parameter", te("chunked;q=1"), 400, 501),
    R("9112-6.1 quoted", te('"chunked"'), 400, 501),
    R("9112-6.1 vertical tab in front", te("\x0bchunked"), 400, 501),
    R("9112-6.1 vertical tab behind", te("chunked\x0b"), 400, 501),
    R("9112-6.1 form feed in front", te("\x0cchunked"), 400, 501),
    R("9112-6.1 NUL behind", te("chunked\0"), 400),
    R("9112-6.1 no-break space", te("\xa0chunked"), 400, 501),
    R("9112-6.1 long s for s", te("chunked\xc5\xbf"), 400, 501),
    R("9112-6.1 space inside", te("chu nked"), 400, 501),
    R("9112-5.1 space before the colon", HEAD + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    R("9112-5.1 tab before the colon", HEAD + "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"),
    R("9112-5.1 space before the colon of a length", HEAD + f"Content-Length : {len(NEXT)}\r\n\r\n{NEXT}"),
    R("9112-5.1 vertical tab in the name", HEAD + f"Content-Length\x0b: {len(NEXT)}\r\n\r\n{NEXT}"),
    R("9112-5.1 NUL in the name", HEAD + f"Content-Length\0: {len(NEXT)}\r\n\r\n{NEXT}"),
    R("9112-5.2 folded coding", HEAD + "Transfer-Encoding:\r\n chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    R("9112-5.2 folded with a tab", HEAD + "Transfer-Encoding:\r\n\tchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    R("9112-5.2 coding in a fold of another field", HEAD + "X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    R("9112-5.2 folded length", HEAD + f"Content-Length:\r\n {len(NEXT)}\r\n\r\n{NEXT}"),
    R("9112-5.2 length in a fold of another field", HEAD + f"X: y\r\n Content-Length: {len(NEXT)}\r\n\r\n{NEXT}"),
    R("9112-6.1 chunked on HTTP/1.0", "POST /first HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    R("9112-6.1 chunked on HTTP/1.0 with keep-alive", "POST /first HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + NEXT),
    E("9110-5.6.1 empty list elements", te(", chunked"), HELLO),
    E("9110-5.6.1 empty list element behind", te("chunked,"), HELLO),
)  # fmt: skip
def test_transfer_encoding(server: ServerProcess, case: Case) -> None:
    run(server, case)


def chunks(body: str, *seen: object) -> str:
    return CHUNKED + body


def bad(id: str, body: str, *statuses: int) -> Case:
    """A bad body behind a good head: the application may have begun, but never gets a whole request."""
    return R(id, CHUNKED + body, *(statuses or (400,)), app="incomplete")


LAST = "0\r\n\r\n"


@table(
    A("9112-7.1 several chunks", chunks("2\r\nhe\r\n3\r\nllo\r\n" + LAST), HELLO, closes=False),
    A("9112-7.1 no content", chunks(LAST), EMPTY, closes=False),
    A("9112-7.1 upper-case hexadecimal", chunks("A\r\n0123456789\r\n" + LAST), ("POST", "/first", "0123456789")),
    A("9112-7.1 lower-case hexadecimal", chunks("a\r\n0123456789\r\n" + LAST), ("POST", "/first", "0123456789")),
    A("9112-7.1 leading zeros", chunks("0005\r\nhello\r\n" + LAST), HELLO),
    A("9112-7.1 last chunk with several zeros", chunks("5\r\nhello\r\n000\r\n\r\n"), HELLO),
    A("9112-7.1 content that looks like the end", chunks("5\r\n0\r\n\r\n\r\n" + LAST), ("POST", "/first", "0\r\n\r\n")),
    A("9112-7.1 content that looks like a request", chunks(f"{len(NEXT):x}\r\n{NEXT}\r\n" + LAST), ("POST", "/first", NEXT)),
    A("9112-7.1.1 extension", chunks("5;name=value\r\nhello\r\n" + LAST), HELLO, closes=False),
    A("9112-7.1.1 extension without a value", chunks("5;name\r\nhello\r\n" + LAST), HELLO),
    A("9112-7.1.1 two extensions", chunks("5;a=b;c=d\r\nhello\r\n" + LAST), HELLO),
    A("9112-7.1.1 quoted value", chunks('5;a="b; c\\" d"\r\nhello\r\n' + LAST), HELLO),
    A("9112-7.1.1 extension at the last chunk", chunks("5\r\nhello\r\n0;a=b\r\n\r\n"), HELLO),
    E("9112-7.1.1 BWS in an extension", chunks("5 ; a = b\r\nhello\r\n" + LAST), HELLO),
    A("9112-7.1.2 trailer section is dropped", chunks("5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"), HELLO, closes=False, fields={"x-sum": None}),
    A("9112-7.1.2 trailer does not become a header", chunks("5\r\nhello\r\n0\r\nX-Admin: yes\r\n\r\n"), HELLO, fields={"x-admin": None}),
    E("9110-6.5.1 length in the trailer section", chunks("5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n"), HELLO),
    E("9110-6.5.1 coding in the trailer section", chunks("5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"), HELLO),
    E("9110-6.5.1 host in the trailer section", chunks("5\r\nhello\r\n0\r\nHost: b\r\n\r\n"), HELLO),
    E("9112-7.1 a hundred leading zeros", chunks("0" * 100 + "5\r\nhello\r\n" + LAST), HELLO),
    bad("9112-7.1 not hexadecimal", "zz\r\nhello\r\n" + LAST),
    bad("9112-7.1 no size", "\r\nhello\r\n" + LAST),
    bad("9112-7.1 minus", "-5\r\nhello\r\n" + LAST),
    bad("9112-7.1 plus", "+5\r\nhello\r\n" + LAST),
    bad("9112-7.1 0x", "0x5\r\nhello\r\n" + LAST),
    bad("9112-7.1 space in front", " 5\r\nhello\r\n" + LAST),
    bad("9112-7.1 tab in front", "\t5\r\nhello\r\n" + LAST),
    bad("9112-7.1 space behind", "5 \r\nhello\r\n" + LAST),
    bad("9112-7.1 vertical tab behind", "5\x0b\r\nhello\r\n" + LAST),
    bad("9112-7.1 letter behind", "5g\r\nhello\r\n" + LAST),
    bad("9112-7.1 underscore as Python has it", "1_0\r\nhello\r\n" + LAST),
    bad("9112-7.1 comma", "5,\r\nhello\r\n" + LAST),
    bad("9112-7.1 NUL behind", "5\0\r\nhello\r\n" + LAST),
    bad("9112-7.1 seventeen digits", "10000000000000005\r\nhello\r\n" + LAST, 400, 413),
    bad("9112-7.1 2**64 - 1", "ffffffffffffffffff\r\nhello\r\n" + LAST, 400, 413),
    bad("9112-2.2 LF ends the size line", "5\nhello\r\n" + LAST),
    bad("9112-2.2 LF ends the content", "5\r\nhello\n" + LAST),
    bad("9112-2.2 LF ends the last chunk", "5\r\nhello\r\n0\n\n"),
    bad("9112-2.2 LF ends the trailer section", "5\r\nhello\r\n0\r\n\n" + NEXT),
    bad("9112-2.2 CR ends the size line", "5\rhello\r\n" + LAST),
    bad("9112-7.1 no CRLF behind the content", "5\r\nhello" + LAST),
    bad("9112-7.1 content longer than said", "3\r\nhello\r\n" + LAST),
    bad("9112-7.1 content longer by two octets that are no CRLF", "5\r\nhelloXX" + LAST),
    bad("9112-7.1 CR and another octet behind the content", "5\r\nhello\rX" + LAST),
    bad("9112-7.1 size hides a request", f"3\r\nabcXX\r\n{len(NEXT):x}\r\n{NEXT}\r\n" + LAST),
    bad("9112-7.1.1 LF inside an extension", "5;a\nGET /smuggled HTTP/1.1\r\nhello\r\n" + LAST),
    bad("9112-7.1.1 CR inside an extension", "5;a\rb\r\nhello\r\n" + LAST),
    bad("9112-7.1.1 NUL inside an extension", "5;a=\0\r\nhello\r\n" + LAST),
    bad("9112-7.1.1 LF in a quoted value", '5;a="\n"\r\nhello\r\n' + LAST),
    bad("9112-7.1.1 extension without a name", "5;\r\nhello\r\n" + LAST),
    bad("9112-7.1.1 extension with a name that is no token", "5;a@b=c\r\nhello\r\n" + LAST),
    bad("9112-7.1.1 quoted value without an end", '5;a="b\r\nhello\r\n' + LAST),
    bad("9112-7.1.1 extension of 20000 octets", "5;a=" + "b" * 20000 + "\r\nhello\r\n" + LAST, 400, 413, 431),
    bad("9112-7.1.1 extensions of 20000 octets in sum", "1;a=" + ("b" * 16 + "\r\nx\r\n1;a=") * 1250 + "c\r\nx\r\n" + LAST, 400, 413, 431),
    bad("9112-7.1.2 trailer of 20000 octets", "0\r\nX: " + "y" * 20000 + "\r\n\r\n", 400, 413, 431),
    bad("9112-7.1.2 trailers without an end", "0\r\n" + "X: y\r\n" * 5000, 400, 413, 431),
    bad("9112-5.1 trailer with a space before the colon", "0\r\nX : y\r\n\r\n"),
    bad("9112-5.2 folded trailer", "0\r\nX: y\r\n z\r\n\r\n"),
    bad("9112-7.1.2 trailer without a colon", "0\r\nXyz\r\n\r\n"),
    bad("9112-7.1.2 trailer with NUL", "0\r\nX: \0\r\n\r\n"),
    bad("9112-7.1.2 request in place of a trailer", "0\r\n" + NEXT + NEXT),
)  # fmt: skip
def test_chunks(server: ServerProcess, case: Case) -> None:
    run(server, case)
