/*
 * Measures without a model. They are cheap and coarse: a low overlap does not prove that an answer
 * is wrong, nor a high one that it is right, but a day on which they move shows that something
 * changed (a model, a chunker, a corpus).
 *
 * Words are runs of letters and digits, ASCII letters in lower case; of scripts that put no spaces
 * between words each character is one. A citation such as [2] is no word. Words and runs of three
 * words of the sources are kept as hashes in a table each: that two words share a hash is less
 * likely than anything these measures could tell apart.
 */
#include "workers/observe/quality.h"

#include <stdlib.h>

enum { SOURCE_WORDS_MAX = 100000, SOURCES_MAX = 256, OPENING = 300 };

/* --- words --- */

static bool is_ascii_word(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Bytes of the UTF-8 sequence at the front of text; what is none counts as one byte. */
static size_t sequence_len(struct sl_span text)
{
    unsigned char c = (unsigned char)text.data[0];
    size_t len = c < 0xc2 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    return len <= text.len ? len : 1;
}

enum kind { SEPARATOR, LETTER, WHOLE_WORD };

static enum kind kind_of(struct sl_span text)
{
    unsigned char c = (unsigned char)text.data[0];
    unsigned char next = text.len > 1 ? (unsigned char)text.data[1] : 0;
    if (c < 0x80) {
        return is_ascii_word(c) ? LETTER : SEPARATOR;
    }
    if ((c == 0xe2 && (next == 0x80 || next == 0x81)) || (c == 0xe3 && next == 0x80)) {
        return SEPARATOR; /* Quotation marks, dashes, ideographic stops. */
    }
    bool ideograph = (c >= 0xe3 && c <= 0xed) || (c == 0xf0 && next >= 0xa0);
    return ideograph ? WHOLE_WORD : LETTER;
}

/* The length of a citation at the front of text, "[2]" or "[1, 3]"; 0: there is none. Marks what it
 * names in cited, where that is given. */
static size_t citation_len(struct sl_span text, bool *cited, size_t sources)
{
    size_t at = 1, n = 0;
    bool digits = false;
    if (text.data[0] != '[') {
        return 0;
    }
    for (; at < text.len; at++) {
        char c = text.data[at];
        if (c >= '0' && c <= '9') {
            n = n < 100000 ? n * 10 + (size_t)(c - '0') : n;
            digits = true;
        } else if (c == ' ' && !digits) {
            continue;
        } else if (digits && (c == ',' || c == ']')) {
            if (cited != NULL && n >= 1 && n <= sources) {
                cited[n - 1] = true;
            }
            n = 0;
            digits = false;
            if (c == ']') {
                return at + 1;
            }
        } else {
            return 0;
        }
    }
    return 0;
}

static void skip(struct sl_span *text, size_t len)
{
    text->data += len;
    text->len -= len;
}

static uint64_t hash_byte(uint64_t hash, unsigned char c)
{
    c = c >= 'A' && c <= 'Z' ? (unsigned char)(c + ('a' - 'A')) : c;
    return (hash ^ c) * 0x100000001b3; /* FNV-1a. */
}

/* The next word's hash, never 0; false at the end. */
static bool next_word(struct sl_span *rest, uint64_t *ret)
{
    uint64_t hash = 0xcbf29ce484222325;
    bool inside = false;
    while (rest->len > 0) {
        enum kind kind = kind_of(*rest);
        size_t len = inside ? 0 : citation_len(*rest, NULL, 0);
        if (len == 0 && inside && kind != LETTER) {
            break;
        }
        if (len == 0) {
            len = sequence_len(*rest);
            for (size_t i = 0; kind != SEPARATOR && i < len; i++) {
                hash = hash_byte(hash, (unsigned char)rest->data[i]);
            }
            inside = kind != SEPARATOR;
        }
        skip(rest, len);
        if (kind == WHOLE_WORD) {
            break;
        }
    }
    *ret = hash != 0 ? hash : 1;
    return inside;
}

/* --- sets of hashes --- */

struct set {
    uint64_t *slots;
    size_t mask; /* Slots - 1, a power of two less one. */
};

static bool set_init(struct set *set, size_t most)
{
    size_t slots = 64;
    while (slots < most * 2) {
        slots *= 2;
    }
    set->slots = calloc(slots, sizeof(*set->slots));
    set->mask = slots - 1;
    return set->slots != NULL;
}

/* The place of the hash, or of where it is to be put. */
static uint64_t *set_find(const struct set *set, uint64_t hash)
{
    size_t i = (hash ^ hash >> 29) & set->mask;
    while (set->slots[i] != 0 && set->slots[i] != hash) {
        i = (i + 1) & set->mask;
    }
    return &set->slots[i];
}

static bool set_has(const struct set *set, uint64_t hash)
{
    return *set_find(set, hash) != 0;
}

/* The last three words as one hash; false while there are fewer. */
struct trigram {
    uint64_t words[3];
    size_t seen;
};

static bool trigram_add(struct trigram *trigram, uint64_t word, uint64_t *ret)
{
    trigram->words[0] = trigram->words[1];
    trigram->words[1] = trigram->words[2];
    trigram->words[2] = word;
    trigram->seen++;
    uint64_t hash = trigram->words[0];
    hash = (hash ^ trigram->words[1] >> 7) * 0x9e3779b97f4a7c15;
    hash = (hash ^ trigram->words[2] >> 11) * 0xbf58476d1ce4e5b9;
    *ret = hash != 0 ? hash : 1;
    return trigram->seen >= 3;
}

/* --- measures --- */

static size_t source_words(const struct sl_query *query)
{
    size_t most = 0;
    for (size_t i = 0; i < query->hits_len; i++) {
        most += query->hits[i].text.len; /* A word has a byte at least. */
    }
    return most < SOURCE_WORDS_MAX ? most : SOURCE_WORDS_MAX;
}

static void read_sources(const struct sl_query *query, size_t most, struct set *words,
                         struct set *trigrams)
{
    size_t left = most;
    for (size_t i = 0; i < query->hits_len; i++) {
        struct sl_span rest = query->hits[i].text;
        struct trigram trigram = {.seen = 0};
        uint64_t word, run;
        while (left > 0 && next_word(&rest, &word)) {
            *set_find(words, word) = word;
            if (trigram_add(&trigram, word, &run)) {
                *set_find(trigrams, run) = run;
            }
            left--;
        }
    }
}

static void measure_overlap(struct sl_span answer, const struct set *words,
                            const struct set *trigrams, struct quality *quality)
{
    struct trigram trigram = {.seen = 0};
    size_t count = 0, found = 0, runs = 0, found_runs = 0;
    uint64_t word, run;
    while (next_word(&answer, &word)) {
        count++;
        found += set_has(words, word) ? 1 : 0;
        if (trigram_add(&trigram, word, &run)) {
            runs++;
            found_runs += set_has(trigrams, run) ? 1 : 0;
        }
    }
    quality->words = count;
    quality->word_overlap = count > 0 ? (double)found / (double)count : 0;
    quality->trigram_overlap = runs > 0 ? (double)found_runs / (double)runs : 0;
}

static void measure_words(const struct sl_ended *ended, struct quality *quality)
{
    struct set words = {.slots = NULL}, trigrams = {.slots = NULL};
    size_t most = source_words(&ended->query);
    if (set_init(&words, most) && set_init(&trigrams, most)) {
        read_sources(&ended->query, most, &words, &trigrams);
        measure_overlap(ended->result.answer, &words, &trigrams, quality);
    }
    free(words.slots);
    free(trigrams.slots);
}

static void measure_citations(struct sl_span answer, struct quality *quality)
{
    bool cited[SOURCES_MAX] = {false};
    size_t sources = quality->sources < SOURCES_MAX ? quality->sources : SOURCES_MAX;
    while (answer.len > 0) {
        size_t len = citation_len(answer, cited, sources);
        skip(&answer, len > 0 ? len : 1);
    }
    for (size_t i = 0; i < sources; i++) {
        quality->cited += cited[i] ? 1 : 0;
    }
    quality->citation_share = sources > 0 ? (double)quality->cited / (double)sources : 0;
}

static bool holds_nocase(struct sl_span text, struct sl_span part)
{
    for (size_t at = 0; at + part.len <= text.len; at++) {
        if (sl_span_equal_nocase((struct sl_span){text.data + at, part.len}, part)) {
            return true;
        }
    }
    return false;
}

/* In the words in which models say it, the generate stage's own among them; English only. */
static bool is_refusal(struct sl_span answer)
{
    static const char *const phrases[] = {"documents do not say",
                                          "don't know",
                                          "do not know",
                                          "cannot answer",
                                          "can't answer",
                                          "unable to",
                                          "not mentioned",
                                          "no information",
                                          "not contain",
                                          "doesn't contain",
                                          "not provided in",
                                          "not specified in",
                                          "i'm sorry",
                                          "i am sorry",
                                          "not enough context"};
    answer.len = answer.len < OPENING ? answer.len : OPENING;
    for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++) {
        if (holds_nocase(answer, sl_span_of(phrases[i]))) {
            return true;
        }
    }
    return false;
}

static bool is_blank(struct sl_span text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (strchr(" \t\r\n", text.data[i]) == NULL) {
            return false;
        }
    }
    return true;
}

void quality_measure(const struct sl_ended *ended, struct quality *ret)
{
    struct sl_span answer = ended->result.answer;
    *ret = (struct quality){.judged = QUALITY_NOT_SAMPLED};
    if (ended->result.outcome != SL_DONE || !ended->query.stages[SL_STAGE_generate].reached) {
        return;
    }
    ret->measured = true;
    ret->sources = ended->query.hits_len;
    ret->empty = is_blank(answer);
    ret->refusal = is_refusal(answer);
    for (size_t i = 0; i < answer.len; i++) {
        ret->characters += ((unsigned char)answer.data[i] & 0xc0) != 0x80 ? 1 : 0;
    }
    measure_words(ended, ret);
    measure_citations(answer, ret);
}
