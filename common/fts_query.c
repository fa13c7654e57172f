/*
 * What people ask is not FTS5's query language: quotes, colons, parentheses, AND, NEAR and * mean
 * something there, and a stray one is an error. So the text is cut into words, and each goes into
 * quotes, where nothing is special but a quote, which no word contains.
 *
 * A word is a run of ASCII letters and digits and of other characters that are not punctuation.
 * FTS5's own tokenizer then decides what in it is a letter; a word that it finds empty (an emoji)
 * matches nothing. Non-ASCII punctuation separates here, since two words in one pair of quotes are
 * a phrase that has to stand side by side in a document. Bytes that are no UTF-8 separate too.
 *
 * The number of words is limited because each costs a look-up, and a text of 32 KB has thousands.
 */
#include "common/fts_query.h"

#include <stdint.h>

/* The length of the character at text, 1 to 4, its code point in *ret; 0: not UTF-8. */
static size_t decode(struct sl_span text, uint32_t *ret)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char lead = (unsigned char)text.data[0];
    size_t len = lead < 0x80 ? 1 : lead < 0xc0 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (len == 0 || len > text.len || lead > 0xf4) {
        return 0;
    }
    uint32_t code = len == 1 ? lead : lead & (0x7fU >> len);
    for (size_t i = 1; i < len; i++) {
        unsigned char next = (unsigned char)text.data[i];
        if ((next & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (next & 0x3fU);
    }
    *ret = code;
    return code >= smallest[len] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? len : 0;
}

static bool is_word(uint32_t code, const char *also)
{
    if (code < 0x80) {
        return (code > 0 && strchr(also, (int)code) != NULL) || (code >= '0' && code <= '9') ||
               ((code | 0x20) >= 'a' && (code | 0x20) <= 'z');
    }
    return code >= 0xc0 && code != 0xd7 && code != 0xf7 /* Latin-1's signs, times, divided by. */
           && !(code >= 0x2000 && code <= 0x206f)       /* General punctuation. */
           && !(code >= 0x3000 && code <= 0x303f)       /* That of Chinese and Japanese. */
           && !(code >= 0xff00 && code <= 0xff0f) && !(code >= 0xff1a && code <= 0xff20);
}

/* The next word of *rest, which loses it; false at the end. */
static bool next_word(struct sl_span *rest, const char *also, struct sl_span *word)
{
    *word = (struct sl_span){NULL, 0};
    while (rest->len > 0) {
        uint32_t code = 0;
        size_t len = decode(*rest, &code);
        bool inside = len > 0 && is_word(code, also);
        if (inside && word->data == NULL) {
            word->data = rest->data;
        }
        if (!inside && word->data != NULL) {
            return true;
        }
        len = len > 0 ? len : 1;
        word->len += inside ? len : 0;
        rest->data += len;
        rest->len -= len;
    }
    return word->data != NULL;
}

static bool contains(const struct sl_span *words, size_t count, struct sl_span word)
{
    for (size_t i = 0; i < count; i++) {
        if (sl_span_equal_nocase(words[i], word)) {
            return true;
        }
    }
    return false;
}

size_t sl_fts_words(struct sl_span text, const char *also, struct sl_span words[SL_FTS_WORDS_MAX])
{
    struct sl_span word;
    size_t count = 0;
    while (count < SL_FTS_WORDS_MAX && next_word(&text, also, &word)) {
        if (!contains(words, count, word)) {
            words[count++] = word;
        }
    }
    return count;
}

size_t sl_fts_query(struct sl_span text, struct sl_buf *out)
{
    struct sl_span words[SL_FTS_WORDS_MAX];
    size_t count = sl_fts_words(text, "", words);
    for (size_t i = 0; i < count; i++) {
        sl_buf_append_text(out, i > 0 ? " OR \"" : "\"");
        sl_buf_append_span(out, words[i]);
        sl_buf_append_text(out, "\"");
    }
    return count;
}
