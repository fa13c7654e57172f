/*
 * How far a chunk reaches, in each unit.
 *
 * Characters are counted as such. The other units go by pieces: up to 4 bytes of white space and up
 * to 16 bytes of what follows, so that a word of most languages is one piece, and a long run
 * without spaces is several. A limit lies at the end of a piece. No piece can be more tokens than
 * it has bytes, 20, the least size of a chunk.
 *
 * Tokens are estimated. A model's tokenizer has a word for most of what is written often, and parts
 * of words, letters or bytes for the rest. A piece counts one for each word of Latin letters and
 * for each further 8 of them, one for each two digits, and one for each other character. Chunks of
 * 100 such tokens have, by the tokenizer of all-MiniLM-L6-v2 (30 000 word pieces), in the middle 84
 * in English prose, 89 in technical Markdown, 95 in source code, 87 in Russian, 94 in Chinese; one
 * in ten is over 94, 102, 109, 87, 97, and the most is 126. By that of SmolLM2 (49 000 byte pairs)
 * it is 91, 95, 89, 80, and 160 in Chinese. SL_CHUNK_COUNTED is for those who need the number
 * itself.
 */
#include "common/chunk_internal.h"

enum { PIECE_SPACE = 4, PIECE_BYTES = 16, LONG = 64, LETTERS_A_TOKEN = 8, DIGITS_A_TOKEN = 2 };

/* --- characters --- */

size_t sl_chunk_forward(struct sl_span text, size_t at, size_t n)
{
    while (n > 0 && at < text.len) {
        size_t most = n < text.len - at ? n : text.len - at;
        size_t run = sl_chunk_ascii(text.data + at, most);
        at += run;
        n -= run;
        for (; n > 0 && at < text.len && ((unsigned char)text.data[at] & 0x80) != 0; n--) {
            at += sl_chunk_length(text, at);
        }
    }
    return at;
}

size_t sl_chunk_back(struct sl_span text, size_t from, size_t at, size_t n)
{
    for (; n > 0 && at > from; n--) {
        at = sl_chunk_previous(text, at);
    }
    return at;
}

static bool is_space(uint32_t cp) /* Unicode's White_Space. */
{
    return cp == ' ' || (cp >= '\t' && cp <= '\r') || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f ||
           cp == 0x205f || cp == 0x3000;
}

bool sl_chunk_wide_space(struct sl_span text, size_t at)
{
    uint32_t cp = sl_chunk_code_point(text, at);
    size_t next = at + sl_chunk_length(text, at);
    return is_space(cp) && (next >= text.len || ((unsigned char)text.data[next] & 0x80) == 0 ||
                            (cp >= '\t' && cp <= '\r') || cp == 0x85 || cp == 0x2028 ||
                            cp == 0x2029 || !sl_chunk_joins(sl_chunk_code_point(text, next)));
}

size_t sl_chunk_skip_space(struct sl_span text, size_t at)
{
    while (at < text.len && sl_chunk_space(text, at)) {
        at += sl_chunk_length(text, at);
    }
    return at;
}

size_t sl_chunk_trim_end(struct sl_span text, size_t from, size_t to)
{
    while (to > from) {
        size_t before = sl_chunk_previous(text, to);
        if (!sl_chunk_space(text, before)) {
            break;
        }
        to = before;
    }
    return to;
}

size_t sl_chunk_end(struct sl_span text)
{
    return sl_chunk_trim_end(text, 0, text.len);
}

/* --- pieces --- */

/* Where the white space at the piece's start ends. */
static size_t piece_word(struct sl_span text, size_t at)
{
    size_t word = at;
    while (word < text.len && sl_chunk_space(text, word)) {
        size_t next = word + sl_chunk_length(text, word);
        if (next - at > PIECE_SPACE) {
            break;
        }
        word = next;
    }
    return word;
}

static size_t piece_end(struct sl_span text, size_t word)
{
    size_t end = word;
    while (end < text.len && !sl_chunk_space(text, end)) {
        size_t next = end + sl_chunk_length(text, end);
        if (next - word > PIECE_BYTES) {
            break;
        }
        end = next;
    }
    return end;
}

size_t sl_chunk_piece(struct sl_span text, size_t at)
{
    return piece_end(text, piece_word(text, at));
}

/* --- what a piece counts --- */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* No white space, or nothing else, from LONG bytes before `at` on: what has no end counts. */
static bool goes_on(struct sl_span text, size_t at, bool space)
{
    size_t from = at;
    while (from > 0 && at - from < LONG &&
           sl_chunk_space(text, sl_chunk_previous(text, from)) == space) {
        from = sl_chunk_previous(text, from);
    }
    return at - from >= LONG;
}

static size_t count_words(const struct chunk_meter *meter, size_t word, size_t end)
{
    struct sl_span text = meter->text;
    if (word == end) {
        return goes_on(text, end, true) ? 1 : 0;
    }
    bool begins = word == 0 || sl_chunk_space(text, sl_chunk_previous(text, word));
    size_t at = word + sl_chunk_ascii(text.data + word, end - word);
    while (at < end && !sl_chunk_unspaced(sl_chunk_code_point(text, at))) {
        at += sl_chunk_length(text, at);
    }
    if (at < end) {
        size_t own = begins && at > word ? 1 : 0;
        return own + sl_chunk_words(meter->breaks, text, word, end);
    }
    return begins || goes_on(text, word, false) ? 1 : 0;
}

static size_t estimate(struct sl_span text, size_t word, size_t end)
{
    size_t tokens = word == end && goes_on(text, end, true) ? 1 : 0, letters = 0, digits = 0;
    for (size_t at = word; at < end; at += sl_chunk_length(text, at)) {
        unsigned char c = (unsigned char)text.data[at];
        if (is_letter(text.data[at]) || (c >= 0xc3 && c <= 0xc9)) { /* Latin, with accents too. */
            tokens += letters % LETTERS_A_TOKEN == 0 ? 1 : 0;
            letters++;
            digits = 0;
        } else if (is_digit(text.data[at])) {
            tokens += digits % DIGITS_A_TOKEN == 0 ? 1 : 0;
            digits++;
            letters = 0;
        } else {
            tokens++;
            letters = digits = 0;
        }
    }
    return tokens;
}

/* In units. */
static size_t weigh(const struct chunk_meter *meter, size_t index, size_t at, size_t *ret_end)
{
    size_t word = piece_word(meter->text, at);
    size_t end = *ret_end = piece_end(meter->text, word);
    switch (meter->options.unit) {
    case SL_CHUNK_WORDS:
        return count_words(meter, word, end);
    case SL_CHUNK_TOKENS:
        return estimate(meter->text, word, end);
    default:
        return meter->options.counts[index];
    }
}

/* --- windows --- */

void sl_chunk_meter_move(struct chunk_meter *meter, size_t start)
{
    if (meter->options.unit == SL_CHUNK_CHARACTERS) {
        return;
    }
    while (meter->piece_at < meter->text.len) {
        size_t end = sl_chunk_piece(meter->text, meter->piece_at);
        if (end > start) {
            break;
        }
        meter->piece_at = end;
        meter->piece_index++;
    }
}

static struct chunk_window measure_pieces(const struct chunk_meter *meter, size_t start)
{
    struct chunk_meter from = *meter;
    sl_chunk_meter_move(&from, start);
    size_t most = meter->options.size, least = most - most / 3, sum = 0, end;
    size_t at = from.piece_at, index = from.piece_index;
    struct chunk_window window = {0};
    while (at < meter->text.len) {
        sum += weigh(meter, index++, at, &end);
        if (sum > most && at > start) {
            break;
        }
        at = end;
        window.earliest = window.earliest == 0 && sum >= least ? at : window.earliest;
    }
    window.limit = at;
    window.earliest = window.earliest == 0 ? at : window.earliest;
    window.ends = at >= meter->text.len;
    return window;
}

struct chunk_window sl_chunk_measure(const struct chunk_meter *meter, size_t start)
{
    size_t size = meter->options.size;
    if (meter->options.unit != SL_CHUNK_CHARACTERS) {
        return measure_pieces(meter, start);
    }
    size_t earliest = sl_chunk_forward(meter->text, start, size - size / 3);
    size_t limit = sl_chunk_forward(meter->text, earliest, size / 3);
    return (struct chunk_window){earliest, limit, limit >= meter->text.len};
}

/* The first piece from which on no more than the overlap is left before cut. */
static size_t find_overlap(const struct chunk_meter *meter, size_t cut)
{
    size_t total = 0, end;
    for (size_t at = meter->piece_at, i = meter->piece_index; at < cut; at = end) {
        total += weigh(meter, i++, at, &end);
    }
    size_t at = meter->piece_at, index = meter->piece_index;
    while (at < cut && total > meter->options.overlap) {
        total -= weigh(meter, index++, at, &end);
        at = end;
    }
    return at < cut ? at : cut;
}

size_t sl_chunk_overlap(const struct chunk_meter *meter, size_t start, size_t cut)
{
    if (meter->options.unit == SL_CHUNK_CHARACTERS) {
        return sl_chunk_back(meter->text, start, cut, meter->options.overlap);
    }
    size_t at = find_overlap(meter, cut);
    return at > start ? at : cut;
}
