/*
 * Text that is not UTF-8 mostly comes from two sources: files that were written on Windows as
 * UTF-16, and old ones in a single-byte encoding. Whoever sent one can mend it in a minute when
 * told which it is, so what is refused says what it looks like. Nothing is converted: the guess may
 * be wrong, and then a document would be stored that nobody wrote.
 */
#include "common/text.h"

#include "common/chunk.h"

#include <stdio.h>

enum { SAMPLE = 4096 };

static bool begins(struct sl_span bytes, const char *mark, size_t len)
{
    return bytes.len >= len && memcmp(bytes.data, mark, len) == 0;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* NULL: nothing known. at: the byte that is wrong. */
static const char *guess(struct sl_span bytes, size_t at)
{
    size_t from = at > SAMPLE / 2 ? (at - SAMPLE / 2) & ~(size_t)1 : 0;
    size_t len = bytes.len - from < SAMPLE ? bytes.len - from : SAMPLE;
    size_t zeros[2] = {0, 0}, controls = 0, high = 0;
    if (begins(bytes, "\xff\xfe\0\0", 4) || begins(bytes, "\0\0\xfe\xff", 4)) {
        return "it begins with the byte order mark of UTF-32";
    }
    if (begins(bytes, "\xff\xfe", 2) || begins(bytes, "\xfe\xff", 2)) {
        return "it begins with the byte order mark of UTF-16";
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)bytes.data[from + i];
        zeros[i % 2] += c == 0;
        controls += c != 0 && c < ' ' && !is_blank((char)c);
        high += c >= 0x80;
    }
    if (len >= 2 && (zeros[0] > len / 4 || zeros[1] > len / 4) &&
        (zeros[0] <= len / 16 || zeros[1] <= len / 16)) {
        return "it looks like UTF-16";
    }
    if (controls + zeros[0] + zeros[1] > 0) {
        return "it looks like a binary file";
    }
    return high > 0 ? "it looks like Latin-1 or Windows-1252" : NULL;
}

static int refuse(struct sl_span text, size_t at, const char *what, char *why, size_t why_size)
{
    const char *looks = guess(text, at);
    snprintf(why, why_size, "%s at byte %zu%s%s", what, at, looks != NULL ? ": " : "",
             looks != NULL ? looks : "");
    return -SL_EINVAL;
}

int sl_text_check(struct sl_span *text, char *why, size_t why_size)
{
    size_t at = 0, valid = sl_utf8_valid(*text);
    if (valid < text->len) {
        return refuse(*text, valid, "is not UTF-8", why, why_size);
    }
    const char *zero = text->len > 0 ? memchr(text->data, '\0', text->len) : NULL;
    if (zero != NULL) {
        return refuse(*text, (size_t)(zero - text->data), "holds a zero character", why, why_size);
    }
    if (begins(*text, "\xef\xbb\xbf", 3)) {
        text->data += 3;
        text->len -= 3;
    }
    while (at < text->len && is_blank(text->data[at])) {
        at++;
    }
    if (at == text->len) {
        snprintf(why, why_size, "is empty");
        return -SL_EINVAL;
    }
    return 0;
}
