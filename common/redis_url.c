/*
 * Takes a Redis URL apart, from the outside in: the scheme, the path (the database), the user
 * and password before the last @, then host and port. A user without a password is refused rather
 * than guessed at: some clients take `redis://x@host` for a user, others for a password.
 */
#include "common/redis_url.h"

#include "common/buf.h"

#include <stdio.h>

enum { DEFAULT_PORT = 6379, MAX_DATABASE = 1000000 };

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Into a terminated text; false: too long, a broken escape or a zero byte. */
static bool percent_decode(struct sl_span from, char *to, size_t to_size)
{
    size_t len = 0;
    for (size_t i = 0; i < from.len; i++) {
        int c = (unsigned char)from.data[i];
        if (c == '%') {
            int high = i + 2 < from.len ? hex_digit(from.data[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(from.data[i + 2]) : -1;
            if (low < 0) {
                return false;
            }
            c = high * 16 + low;
            i += 2;
        }
        if (c == '\0' || len + 1 >= to_size) {
            return false;
        }
        to[len++] = (char)c;
    }
    to[len] = '\0';
    return true;
}

/* What stands before the first c; the rest, without c, stays in *text. False: there is no c. */
static bool split(struct sl_span *text, char c, struct sl_span *ret_before)
{
    const char *at = text->len > 0 ? memchr(text->data, c, text->len) : NULL;
    if (at == NULL) {
        return false;
    }
    size_t before = (size_t)(at - text->data);
    *ret_before = (struct sl_span){text->data, before};
    *text = (struct sl_span){at + 1, text->len - before - 1};
    return true;
}

static const char *parse_user(struct sl_span text, struct sl_redis_url *url)
{
    struct sl_span user;
    if (!split(&text, ':', &user)) {
        return "a user needs a password (user:password@, or :password@ for the default user)";
    }
    if (!percent_decode(user, url->user, sizeof(url->user)) ||
        !percent_decode(text, url->password, sizeof(url->password))) {
        return "the user or the password is too long or not well percent-encoded";
    }
    return url->password[0] == '\0' ? "the password is empty" : NULL;
}

static const char *parse_host(struct sl_span text, struct sl_redis_url *url)
{
    struct sl_span host = text, port = {NULL, 0};
    bool has_port = false;
    if (text.len > 0 && text.data[0] == '[') {
        text = (struct sl_span){text.data + 1, text.len - 1};
        if (!split(&text, ']', &host) || (text.len > 0 && text.data[0] != ':')) {
            return "the address in brackets is not complete";
        }
        has_port = text.len > 0;
        port = has_port ? (struct sl_span){text.data + 1, text.len - 1} : port;
    } else if (split(&text, ':', &host)) {
        has_port = true;
        port = text;
    }
    if (host.len == 0 || host.len >= sizeof(url->host)) {
        return host.len == 0 ? "the host is missing" : "the host is too long";
    }
    memcpy(url->host, host.data, host.len);
    url->host[host.len] = '\0';
    long long number = DEFAULT_PORT;
    if (has_port && sl_span_to_int(port, 1, UINT16_MAX, &number) != 0) {
        return "the port is not a number from 1 to 65535 (an IPv6 address needs [brackets])";
    }
    url->port = (uint16_t)number;
    return NULL;
}

/* NULL, or what is wrong. */
static const char *parse(struct sl_span text, struct sl_redis_url *url)
{
    static const struct sl_span scheme = {"redis://", 8};
    if (text.len >= 9 &&
        sl_span_equal_nocase((struct sl_span){text.data, 9}, SL_SPAN("rediss://"))) {
        return "TLS (rediss://) is not supported";
    }
    if (text.len < scheme.len ||
        !sl_span_equal_nocase((struct sl_span){text.data, scheme.len}, scheme)) {
        return "it does not begin with redis://";
    }
    text = (struct sl_span){text.data + scheme.len, text.len - scheme.len};
    struct sl_span authority;
    if (split(&text, '/', &authority)) {
        long long database = 0;
        if (text.len > 0 && sl_span_to_int(text, 0, MAX_DATABASE, &database) != 0) {
            return "what follows the host must be the number of a database";
        }
        url->database = (int)database;
    } else {
        authority = text;
    }
    const char *at = authority.len > 0 ? memrchr(authority.data, '@', authority.len) : NULL;
    if (at != NULL) {
        size_t len = (size_t)(at - authority.data);
        const char *wrong = parse_user((struct sl_span){authority.data, len}, url);
        if (wrong != NULL) {
            return wrong;
        }
        authority = (struct sl_span){at + 1, authority.len - len - 1};
    }
    return parse_host(authority, url);
}

int sl_redis_url_parse(const char *text, struct sl_redis_url *ret, char *why, size_t why_size)
{
    struct sl_redis_url url = {.port = DEFAULT_PORT};
    const char *wrong = parse(sl_span_of(text), &url);
    if (wrong == NULL) {
        *ret = url;
    } else if (why_size > 0) {
        snprintf(why, why_size, "%s", wrong);
    }
    explicit_bzero(&url, sizeof(url));
    return wrong == NULL ? 0 : -SL_EINVAL;
}
