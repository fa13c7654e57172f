/*
 * Text rules of HTTP that need no connection. What callers put into a request is checked here, as
 * neither curl nor a server of ours must be made to write a line that nobody meant (header
 * injection). URLs are only taken apart as far as naming the peer in messages needs; curl, which
 * uses them, parses them again in full.
 *
 * Retry-After: servers send seconds; proxies and object stores send dates, in the form that RFC
 * 9110 prefers or in the two old ones that a recipient must still take. What cannot be read counts
 * as absent, so that a strange header never stops a retry; a far future is cut to a day, so that it
 * never overflows what callers compute with it.
 */
#include "common/http_text.h"

#include <stdio.h>
#include <strings.h>
#include <time.h>

bool sl_http_is_token(struct sl_span text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL)) {
            return false;
        }
    }
    return text.len > 0;
}

bool sl_http_is_value(struct sl_span text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if ((c < ' ' && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static struct sl_span skip(struct sl_span text, size_t len)
{
    return (struct sl_span){text.data + len, text.len - len};
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c != '\0' ? strchr(digits, c >= 'A' && c <= 'F' ? c | 0x20 : c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

int sl_http_percent_decode(struct sl_span text, bool blanks, struct sl_buf *out)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        if (c == '%') {
            int high = text.len - i > 2 ? hex_digit(text.data[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(text.data[i + 2]) : -1;
            if (low < 0) {
                return -SL_EINVAL;
            }
            c = (char)(high << 4 | low);
            i += 2;
        } else if (blanks && c == '+') {
            c = ' ';
        }
        sl_buf_append(out, &c, 1);
    }
    return 0;
}

bool sl_http_next_parameter(struct sl_span *rest, struct sl_span *name, struct sl_span *value)
{
    while (rest->len > 0 && rest->data[0] == '&') {
        *rest = skip(*rest, 1);
    }
    if (rest->len == 0) {
        return false;
    }
    const char *end = memchr(rest->data, '&', rest->len);
    size_t len = end != NULL ? (size_t)(end - rest->data) : rest->len;
    const char *equals = memchr(rest->data, '=', len);
    size_t name_len = equals != NULL ? (size_t)(equals - rest->data) : len;
    *name = (struct sl_span){rest->data, name_len};
    *value = equals != NULL ? (struct sl_span){equals + 1, len - name_len - 1} : SL_SPAN("");
    *rest = skip(*rest, len);
    return true;
}

/* Without user and password. */
static struct sl_span authority_of(const char *after_scheme)
{
    struct sl_span authority = {after_scheme, strcspn(after_scheme, "/?#")};
    const char *at = memrchr(authority.data, '@', authority.len);
    return at != NULL ? skip(authority, (size_t)(at + 1 - authority.data)) : authority;
}

int sl_http_url_peer(const char *url, char *ret, size_t size)
{
    bool tls = strncasecmp(url, "https://", 8) == 0;
    if (!tls && strncasecmp(url, "http://", 7) != 0) {
        return -SL_EINVAL;
    }
    for (const char *c = url; *c != '\0'; c++) {
        if ((unsigned char)*c <= ' ' || *c == 0x7f) {
            return -SL_EINVAL;
        }
    }
    struct sl_span rest = authority_of(url + (tls ? 8 : 7));
    struct sl_span host = {rest.data, 0};
    const char *end = rest.len > 0 && rest.data[0] == '[' ? memchr(rest.data, ']', rest.len)
                                                          : memchr(rest.data, ':', rest.len);
    if (rest.len > 0 && rest.data[0] == '[') {
        host.len = end != NULL ? (size_t)(end + 1 - rest.data) : 0;
    } else {
        host.len = end != NULL ? (size_t)(end - rest.data) : rest.len;
    }
    rest = skip(rest, host.len);
    long long port = tls ? 443 : 80;
    if (host.len == 0 || (rest.len > 0 && (rest.data[0] != ':' || rest.len == 1 ||
                                           rest.data[1] < '0' || rest.data[1] > '9' ||
                                           sl_span_to_int(skip(rest, 1), 1, 65535, &port) != 0))) {
        return -SL_EINVAL;
    }
    snprintf(ret, size, SL_SPAN_FMT ":%lld", SL_SPAN_ARG(host), port);
    return 0;
}

struct sl_span sl_http_trim(struct sl_span text)
{
    while (text.len > 0 && (unsigned char)text.data[0] <= ' ') {
        text = skip(text, 1);
    }
    while (text.len > 0 && (unsigned char)text.data[text.len - 1] <= ' ') {
        text.len--;
    }
    return text;
}

static bool parse_date(struct sl_span value, int64_t *ret_unix_s)
{
    static const char *const forms[] = {
        "%a, %d %b %Y %H:%M:%S GMT", /* Sun, 06 Nov 1994 08:49:37 GMT */
        "%A, %d-%b-%y %H:%M:%S GMT", /* Sunday, 06-Nov-94 08:49:37 GMT */
        "%a %b %e %H:%M:%S %Y",      /* Sun Nov  6 08:49:37 1994 */
    };
    char text[64];
    if (value.len >= sizeof(text)) {
        return false;
    }
    memcpy(text, value.data, value.len);
    text[value.len] = '\0';
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        struct tm tm = {0};
        const char *end = strptime(text, forms[i], &tm);
        if (end != NULL && *end == '\0') {
            *ret_unix_s = (int64_t)timegm(&tm);
            return true;
        }
    }
    return false;
}

long sl_http_retry_after_ms(struct sl_span value, int64_t unix_ms)
{
    long long seconds;
    int64_t date;
    int64_t left;
    value = sl_http_trim(value);
    if (value.len == 0 || value.data[0] == '-') {
        return -1;
    }
    if (sl_span_to_int(value, 0, INT32_MAX, &seconds) == 0) {
        left = seconds * 1000;
    } else if (parse_date(value, &date)) {
        left = date * 1000 - unix_ms;
    } else {
        return -1;
    }
    left = left < 0 ? 0 : left;
    return (long)(left > SL_HTTP_RETRY_AFTER_MAX_MS ? SL_HTTP_RETRY_AFTER_MAX_MS : left);
}
