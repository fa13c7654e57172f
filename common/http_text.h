/* Small pieces of HTTP's and URLs' text: what may be sent, and values that are read. Pure. */
#ifndef SLUICE_COMMON_HTTP_TEXT_H
#define SLUICE_COMMON_HTTP_TEXT_H

#include "common/buf.h"

#include <stdint.h>

/* A method or the name of a header (RFC 9110 token). */
bool sl_http_is_token(struct sl_span text);
/* The value of a header: nothing in it could end the line. */
bool sl_http_is_value(struct sl_span text);

/* "host:port" of an http:// or https:// URL, with the scheme's port when there is none and without
 * user and password; terminated, cut to size. -SL_EINVAL: not such a URL. */
int sl_http_url_peer(const char *url, char *ret, size_t size) SL_CHECKED;

/* Without the blanks around it. */
struct sl_span sl_http_trim(struct sl_span text);

/* Appends text with each %XX as its byte; blanks: "+" is a blank, as in query strings, not in
 * paths. -SL_EINVAL: a "%" without two hexadecimal digits. A lack of memory stays in out. */
int sl_http_percent_decode(struct sl_span text, bool blanks, struct sl_buf *out) SL_CHECKED;
/* The next NAME=VALUE of a query string, as it stands there, and rest behind it; false at the end.
 * Without "=" the value is empty. */
bool sl_http_next_parameter(struct sl_span *rest, struct sl_span *name, struct sl_span *value);

enum { SL_HTTP_RETRY_AFTER_MAX_MS = 24 * 3600 * 1000 };
/* Retry-After, seconds or one of the three forms of a date, in milliseconds from unix_ms on, at
 * most a day; 0 for a date in the past; -1 when the value is neither. Ignores spaces around it. */
long sl_http_retry_after_ms(struct sl_span value, int64_t unix_ms);

#endif
