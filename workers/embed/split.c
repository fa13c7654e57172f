/*
 * A text is searched from its middle outward, so that what is found first is nearest. Only ASCII is
 * looked for: ends of lines, of sentences with a space behind them, spaces. In a script without
 * them the cut is at a character's boundary.
 */
#include "workers/embed/split.h"

#include <stdbool.h>

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* The rank of a cut before the byte `at`: 2 behind a sentence or line, 1 behind a space. */
static int rank(struct sl_span text, size_t at)
{
    char before = text.data[at - 1];
    if (!is_space(before) || is_space(text.data[at])) {
        return 0;
    }
    char end = at >= 2 ? text.data[at - 2] : '\0';
    return before == '\n' || end == '\n' || end == '.' || end == '!' || end == '?' ? 2 : 1;
}

/* The nearest cut of at least this rank within a quarter of the text; 0: none. */
static size_t nearest(struct sl_span text, int least)
{
    size_t middle = text.len / 2;
    for (size_t away = 0; away < text.len / 4; away++) {
        if (rank(text, middle - away) >= least) {
            return middle - away;
        }
        if (rank(text, middle + away) >= least) {
            return middle + away;
        }
    }
    return 0;
}

static bool begins_character(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

static size_t count_characters(struct sl_span text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++) {
        count += begins_character(text.data[i]) ? 1 : 0;
    }
    return count;
}

size_t split_at(struct sl_span text, size_t min)
{
    if (count_characters(text) < min || text.len < 2) {
        return 0;
    }
    size_t at = nearest(text, 2);
    at = at > 0 ? at : nearest(text, 1);
    if (at == 0) {
        at = text.len / 2;
        while (at > 0 && !begins_character(text.data[at])) {
            at--;
        }
    }
    return at;
}

size_t split_trim(struct sl_span text, size_t at)
{
    size_t len = at;
    while (len > 0 && is_space(text.data[len - 1])) {
        len--;
    }
    return len > 0 ? len : at;
}
