/*
 * Unicode's boundaries of sentences, words and grapheme clusters (UAX #29), by ICU. Each question
 * is about a window of the text, which is converted to UTF-16 with a table of where each unit came
 * from.
 *
 * ICU is asked only where it is needed, since that makes chunking of prose take seven times as long
 * (2.8 instead of 0.4 ns a byte): the ends of sentences in ASCII are found here, by the same rules,
 * and next to ASCII a boundary of clusters needs no look further around (tests compare both with
 * ICU). Iterators are opened when they are first needed; a plain ASCII text opens none.
 *
 * The rules are those of the root locale and come from the library's own data: neither LANG nor
 * ICU_DATA changes them. Another release of ICU may, with Unicode.
 */
#include "common/chunk_internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <unicode/putil.h>
#include <unicode/ubrk.h>
#include <unicode/uchar.h>
#include <unicode/uclean.h>
#include <unicode/udata.h>

enum {
    AROUND = 64,         /* Characters that are looked at beyond those in question. */
    CLUSTER_BACK = 4096, /* Characters that a search for a cluster or word starts before. */
    WORDS_WINDOW = 1024, /* Characters in which words are looked for at once. */
};

enum kind { SENTENCES, WORDS, CLUSTERS, KINDS };
static const UBreakIteratorType types[KINDS] = {UBRK_SENTENCE, UBRK_WORD, UBRK_CHARACTER};

struct chunk_breaks {
    UBreakIterator *iterators[KINDS];
    enum kind kind; /* Of the window. */
    size_t from, to;
    UChar *units;
    uint32_t *places; /* Byte of each unit, and of the end. */
    size_t len, cap;
    int err;
};

/* --- opening --- */

static int error_of(UErrorCode status)
{
    return status == U_MEMORY_ALLOCATION_ERROR ? -SL_ENOMEM : -SL_EIO;
}

static UBreakIterator *open_iterator(enum kind kind, int *ret_err)
{
    UErrorCode status = U_ZERO_ERROR;
    UBreakIterator *iterator = ubrk_open(types[kind], "", NULL, 0, &status);
    if (U_FAILURE(status)) {
        *ret_err = error_of(status);
        ubrk_close(iterator);
        return NULL;
    }
    return iterator;
}

static pthread_mutex_t setup_lock = PTHREAD_MUTEX_INITIALIZER;
static bool setup_done;

/* Dictionaries are loaded when a text first needs one. */
static int load(enum kind kind)
{
    static const UChar letters[] = {0x4e00, 0x4e8c, ' ', 0x0e01, 0x0e02, 0};
    UErrorCode status = U_ZERO_ERROR;
    int err = 0;
    UBreakIterator *iterator = open_iterator(kind, &err);
    if (iterator == NULL) {
        return err;
    }
    ubrk_setText(iterator, letters, 5, &status);
    while (U_SUCCESS(status) && ubrk_next(iterator) != UBRK_DONE) {
    }
    ubrk_close(iterator);
    return U_FAILURE(status) ? error_of(status) : 0;
}

int sl_chunk_setup(void)
{
    UErrorCode status = U_ZERO_ERROR;
    int rv = 0;
    pthread_mutex_lock(&setup_lock);
    if (!setup_done) {
        u_setDataDirectory("");
        udata_setFileAccess(UDATA_NO_FILES, &status);
        rv = U_FAILURE(status) ? error_of(status) : 0;
        for (enum kind kind = 0; rv == 0 && kind < KINDS; kind++) {
            rv = load(kind);
        }
        setup_done = rv == 0;
    }
    pthread_mutex_unlock(&setup_lock);
    return rv;
}

struct chunk_breaks *sl_chunk_breaks_create(void)
{
    return calloc(1, sizeof(struct chunk_breaks));
}

void sl_chunk_breaks_destroy(struct chunk_breaks *breaks)
{
    if (breaks == NULL) {
        return;
    }
    for (enum kind kind = 0; kind < KINDS; kind++) {
        if (breaks->iterators[kind] != NULL) {
            ubrk_close(breaks->iterators[kind]);
        }
    }
    free(breaks->units);
    free(breaks->places);
    free(breaks);
}

int sl_chunk_breaks_error(const struct chunk_breaks *breaks)
{
    return breaks->err;
}

/* --- the window --- */

static int grow(struct chunk_breaks *breaks, size_t units)
{
    if (units <= breaks->cap) {
        return 0;
    }
    UChar *to = realloc(breaks->units, units * sizeof(*to));
    breaks->units = to != NULL ? to : breaks->units;
    uint32_t *places = realloc(breaks->places, units * sizeof(*places));
    breaks->places = places != NULL ? places : breaks->places;
    if (to == NULL || places == NULL) {
        return -SL_ENOMEM;
    }
    breaks->cap = units;
    return 0;
}

static bool ends_line(uint32_t cp)
{
    return cp == '\n' || cp == '\r' || cp == 0x85 || cp == 0x2028 || cp == 0x2029;
}

/* A line's end is a space to sentences: lines of prose are often broken by width. */
static void convert(struct chunk_breaks *breaks, struct sl_span text, enum kind kind, size_t from,
                    size_t to)
{
    size_t len = 0;
    for (size_t at = from; at < to; at += sl_chunk_length(text, at)) {
        uint32_t cp = sl_chunk_code_point(text, at);
        breaks->places[len] = (uint32_t)at;
        if (kind == SENTENCES && ends_line(cp)) {
            breaks->units[len++] = ' ';
        } else if (cp < 0x10000) {
            breaks->units[len++] = (UChar)cp;
        } else {
            breaks->units[len++] = U16_LEAD(cp);
            breaks->places[len] = (uint32_t)at;
            breaks->units[len++] = U16_TRAIL(cp);
        }
    }
    breaks->places[len] = (uint32_t)to;
    breaks->len = len;
}

/* The iterator on text[from, to), or NULL with the error set. */
static UBreakIterator *look_at(struct chunk_breaks *breaks, struct sl_span text, enum kind kind,
                               size_t from, size_t to)
{
    UErrorCode status = U_ZERO_ERROR;
    UBreakIterator **iterator = &breaks->iterators[kind];
    if (breaks->err == 0 && *iterator == NULL) {
        breaks->err = sl_chunk_setup();
        *iterator = breaks->err == 0 ? open_iterator(kind, &breaks->err) : NULL;
        breaks->to = 0;
    }
    if (breaks->err == 0 && breaks->kind == kind && breaks->from == from && breaks->to == to) {
        return *iterator;
    }
    breaks->err = breaks->err != 0 ? breaks->err : grow(breaks, to - from + 1);
    if (breaks->err == 0) {
        convert(breaks, text, kind, from, to);
        breaks->kind = kind;
        breaks->from = from;
        breaks->to = to;
        ubrk_setText(*iterator, breaks->units, (int32_t)breaks->len, &status);
        breaks->err = U_FAILURE(status) ? error_of(status) : 0;
    }
    return breaks->err == 0 ? *iterator : NULL;
}

/* The first unit of a place that is at or behind `at`. */
static int32_t unit_of(const struct chunk_breaks *breaks, size_t at)
{
    size_t low = 0, high = breaks->len;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (breaks->places[middle] < at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return (int32_t)low;
}

/* The boundary at unit, or the last before. */
static int32_t boundary_before(UBreakIterator *iterator, int32_t unit)
{
    return ubrk_isBoundary(iterator, unit) ? unit : ubrk_preceding(iterator, unit);
}

/* --- sentences --- */

size_t sl_chunk_sentence_icu(struct chunk_breaks *breaks, struct sl_span text, size_t from,
                             size_t to, size_t low, size_t high)
{
    UBreakIterator *iterator = look_at(breaks, text, SENTENCES, from, to);
    if (iterator == NULL) {
        return 0;
    }
    size_t end = sl_chunk_skip_space(text, high);
    end = end < to ? end : to - 1;
    int32_t unit = boundary_before(iterator, unit_of(breaks, end));
    for (; unit != UBRK_DONE && unit > 0; unit = ubrk_previous(iterator)) {
        size_t at = breaks->places[unit];
        size_t trimmed = sl_chunk_trim_end(text, from, at);
        if (trimmed < low || trimmed == from) {
            break;
        }
        /* Between letters and ASCII's full stops, it is more likely something else: "a?b=c". */
        bool wide = ((unsigned char)text.data[at - 1] & 0x80) != 0;
        if (trimmed <= high && (trimmed < at || wide)) {
            return trimmed;
        }
    }
    return 0;
}

static bool is_terminator(char c)
{
    return c == '.' || c == '!' || c == '?';
}

static bool is_close(char c)
{
    return c == '"' || c == '\'' || c == '(' || c == ')' || c == '[' || c == ']' || c == '{' ||
           c == '}';
}

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

/* Rules SB6 to SB11 at the terminator at `at`, in ASCII: where white space after the sentence
 * starts; 0: the sentence goes on, or no white space follows. */
static size_t ascii_end(const char *data, size_t at, size_t to)
{
    bool full_stop = data[at] == '.';
    size_t close = at + 1;
    while (close < to && is_close(data[close])) {
        close++;
    }
    size_t next = close;
    while (next < to && sl_chunk_ascii_space(data[next])) {
        next++;
    }
    if (next == close || next == to || is_terminator(data[next]) || data[next] == ',' ||
        data[next] == '-' || data[next] == ':') {
        return 0;
    }
    if (full_stop) { /* What goes on in small letters, goes on. */
        while (next < to && !is_terminator(data[next]) &&
               !(data[next] >= 'A' && data[next] <= 'Z') && !is_lower(data[next])) {
            next++;
        }
        if (next < to && is_lower(data[next])) {
            return 0;
        }
    }
    return close;
}

static size_t ascii_sentence(struct sl_span text, size_t from, size_t to, size_t low, size_t high)
{
    for (size_t at = high; at-- > from;) {
        if (is_terminator(text.data[at])) {
            size_t end = ascii_end(text.data, at, to);
            if (end != 0 && end <= high) {
                return end >= low ? end : 0;
            }
        }
    }
    return 0;
}

size_t sl_chunk_sentence(struct chunk_breaks *breaks, struct sl_span text, size_t from, size_t to,
                         size_t low, size_t high)
{
    if (sl_chunk_ascii(text.data + from, to - from) == to - from) {
        return ascii_sentence(text, from, to, low, high);
    }
    return sl_chunk_sentence_icu(breaks, text, from, to, low, high);
}

/* --- words --- */

size_t sl_chunk_word(struct chunk_breaks *breaks, struct sl_span text, size_t from, size_t low,
                     size_t high)
{
    size_t start = sl_chunk_back(text, from, low, CLUSTER_BACK);
    size_t to = sl_chunk_forward(text, high, AROUND);
    UBreakIterator *iterator = look_at(breaks, text, WORDS, start, to);
    if (iterator == NULL) {
        return 0;
    }
    int32_t unit = boundary_before(iterator, unit_of(breaks, high));
    size_t at = unit > 0 ? breaks->places[unit] : 0;
    return at >= low && at <= high ? at : 0;
}

size_t sl_chunk_words(struct chunk_breaks *breaks, struct sl_span text, size_t from, size_t to)
{
    size_t words = 0;
    bool inside = breaks->kind == WORDS && from >= breaks->from && to < breaks->to;
    size_t start = inside ? breaks->from : from;
    size_t end = inside ? breaks->to : sl_chunk_forward(text, from, WORDS_WINDOW);
    UBreakIterator *iterator = look_at(breaks, text, WORDS, start, end < to ? to : end);
    if (iterator == NULL) {
        return 0;
    }
    int32_t unit = unit_of(breaks, from);
    unit = ubrk_isBoundary(iterator, unit) ? unit : ubrk_following(iterator, unit);
    for (; unit != UBRK_DONE && breaks->places[unit] < to; unit = ubrk_next(iterator)) {
        words += sl_chunk_unspaced(sl_chunk_code_point(text, breaks->places[unit])) ? 1 : 0;
    }
    return words;
}

bool sl_chunk_unspaced(uint32_t cp)
{
    if (cp < 0xe00) {
        return false;
    }
    int32_t breaking = u_getIntPropertyValue((UChar32)cp, UCHAR_LINE_BREAK);
    return breaking == U_LB_COMPLEX_CONTEXT || breaking == U_LB_IDEOGRAPHIC ||
           breaking == U_LB_CONDITIONAL_JAPANESE_STARTER;
}

/* --- clusters --- */

bool sl_chunk_joins(uint32_t cp)
{
    if (cp < 0x300) {
        return false;
    }
    int32_t kind = u_getIntPropertyValue((UChar32)cp, UCHAR_GRAPHEME_CLUSTER_BREAK);
    return kind == U_GCB_EXTEND || kind == U_GCB_ZWJ || kind == U_GCB_SPACING_MARK;
}

/* Where the characters on either side say it: 1, 0; -1: they do not. */
static int plain_boundary(struct sl_span text, size_t at)
{
    unsigned char before = (unsigned char)text.data[at - 1];
    unsigned char next = (unsigned char)text.data[at];
    if (next < 0x80 && before < 0x80) {
        return before != '\r' || next != '\n';
    }
    if (next < 0x80) { /* What is put before a character, joins it. */
        uint32_t cp = sl_chunk_code_point(text, sl_chunk_previous(text, at));
        int32_t kind = u_getIntPropertyValue((UChar32)cp, UCHAR_GRAPHEME_CLUSTER_BREAK);
        return kind == U_GCB_PREPEND ? -1 : 1;
    }
    return before < 0x80 && !sl_chunk_joins(sl_chunk_code_point(text, at)) ? 1 : -1;
}

size_t sl_chunk_cluster_start(struct chunk_breaks *breaks, struct sl_span text, size_t from,
                              size_t at)
{
    int plain = at <= from || at >= text.len ? 1 : plain_boundary(text, at);
    if (plain >= 0) {
        return plain == 1 ? at : at - 1;
    }
    size_t start = sl_chunk_back(text, from, at, CLUSTER_BACK);
    UBreakIterator *iterator =
        look_at(breaks, text, CLUSTERS, start, sl_chunk_forward(text, at, 1));
    return iterator == NULL ? at : breaks->places[boundary_before(iterator, unit_of(breaks, at))];
}

size_t sl_chunk_cluster_end(struct chunk_breaks *breaks, struct sl_span text, size_t from,
                            size_t at)
{
    int plain = at <= from || at >= text.len ? 1 : plain_boundary(text, at);
    if (plain >= 0) {
        return plain == 1 ? at : at + 1;
    }
    size_t start = sl_chunk_back(text, from, at, CLUSTER_BACK), end = at;
    for (size_t around = AROUND;; around *= 2) {
        size_t to = sl_chunk_forward(text, at, around);
        UBreakIterator *iterator = look_at(breaks, text, CLUSTERS, start, to);
        if (iterator == NULL) {
            return at;
        }
        int32_t unit = unit_of(breaks, at);
        unit = ubrk_isBoundary(iterator, unit) ? unit : ubrk_following(iterator, unit);
        end = breaks->places[unit];
        if (end < to || to == text.len) {
            return end;
        }
    }
}
