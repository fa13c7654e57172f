/* What may be sent in a request, how a peer is named, and how Retry-After is read. */
#include "common/http_text.h"
#include "tests/support/test.h"

TEST(names_the_peer_of_a_url)
{
    static const struct {
        const char *url, *peer; /* NULL: refused. */
    } cases[] = {
        {"http://127.0.0.1:8000/v1", "127.0.0.1:8000"},
        {"http://example.com", "example.com:80"},
        {"HTTPS://example.com/a?b:c@d#e", "example.com:443"},
        {"http://user:secret@example.com:81/x@y", "example.com:81"},
        {"http://[::1]:8000/", "[::1]:8000"},
        {"http://[::1]?x", "[::1]:80"},
        {"", NULL},
        {"http://", NULL},
        {"http://:80/", NULL},
        {"http://[::1", NULL},
        {"http://[::1]x", NULL},
        {"http://a:0", NULL},
        {"http://a:65536", NULL},
        {"http://a:-1", NULL},
        {"http://a:", NULL},
        {"http://a/b c", NULL},
        {"http://a/\r\nX: y", NULL},
        {"ftp://a/", NULL},
        {"file:///etc/passwd", NULL},
        {"example.com", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char peer[64] = "untouched";
        int rv = sl_http_url_peer(cases[i].url, peer, sizeof(peer));
        CHECK_INT(rv, cases[i].peer != NULL ? 0 : -SL_EINVAL);
        CHECK_STR(peer, cases[i].peer != NULL ? cases[i].peer : "untouched");
    }
    char small[8];
    CHECK_INT(sl_http_url_peer("http://a-long-name.example/", small, sizeof(small)), 0);
    CHECK_STR(small, "a-long-");
}

TEST(refuses_what_would_break_a_line)
{
    CHECK(sl_http_is_token(SL_SPAN("x-Api_Key.1")));
    CHECK(!sl_http_is_token(SL_SPAN("")));
    CHECK(!sl_http_is_token(SL_SPAN("a b")));
    CHECK(!sl_http_is_token(SL_SPAN("a:")));
    CHECK(!sl_http_is_token(SL_SPAN("a\0b")));
    CHECK(sl_http_is_value(SL_SPAN("")));
    CHECK(sl_http_is_value(SL_SPAN("Bearer \tk\xc3\xa4se")));
    CHECK(!sl_http_is_value(SL_SPAN("a\r\nb: c")));
    CHECK(!sl_http_is_value(SL_SPAN("a\nb")));
    CHECK(!sl_http_is_value(SL_SPAN("a\0b")));
}

TEST(reads_retry_after_in_seconds_and_as_a_date)
{
    static const int64_t now = 784111777000; /* Sun, 06 Nov 1994 08:49:37 GMT */
    static const struct {
        const char *value;
        long ms;
    } cases[] = {
        {"0", 0},
        {"120", 120000},
        {" 7 \r\n", 7000},
        {"2147483647", SL_HTTP_RETRY_AFTER_MAX_MS},
        {"Sun, 06 Nov 1994 08:49:40 GMT", 3000},
        {"Sunday, 06-Nov-94 08:50:37 GMT", 60000},
        {"Sun Nov  6 08:49:38 1994", 1000},
        {"Sun, 06 Nov 1994 08:49:00 GMT", 0},
        {"Sun, 06 Nov 2044 08:49:00 GMT", SL_HTTP_RETRY_AFTER_MAX_MS},
        {"Sun, 06 Nov 1994 08:49:40 GMT and a bit", -1},
        {"", -1},
        {"-1", -1},
        {"1.5", -1},
        {"soon", -1},
        {"99999999999999999999999999999999999999999999999999999999999999999999999", -1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CHECK_INT(sl_http_retry_after_ms(sl_span_of(cases[i].value), now), cases[i].ms);
    }
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"names_the_peer_of_a_url", names_the_peer_of_a_url},
        {"refuses_what_would_break_a_line", refuses_what_would_break_a_line},
        {"reads_retry_after_in_seconds_and_as_a_date", reads_retry_after_in_seconds_and_as_a_date},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
