/*
 * Byte by byte, in two machines. The outer one splits lines into field and value and knows an event
 * by its empty line; of a field it keeps the first bytes, which is enough to tell those that count
 * apart. The value of a delta's data goes to the inner machine, which walks through one JSON object
 * and counts the words of the string member "text" of its first level; any other data is skipped.
 *
 * A delta counts when its event is complete. A word that two deltas share is one word, counted in
 * the first.
 *
 * What can go wrong, all -SL_EBADMSG: a delta without text or whose braces do not match, an event
 * of an unknown type, anything after the event that ends the answer but `data: [DONE]`, and
 * anything after that. JSON is not otherwise checked: tests/support/client.py is strict about every
 * byte.
 */
#include "tests/bench/load_sse.h"

enum { FIELD, SPACE, VALUE };                                    /* load_sse.state */
enum { OTHER_FIELD, EVENT_FIELD, DATA_FIELD };                   /* load_sse.field */
enum { NO_TYPE, SOURCES, DELTA, RESTART, DONE, ERROR, UNKNOWN }; /* load_sse.type */
enum { OUTSIDE, KEY, TEXT, STRING, KEY_ESCAPE, TEXT_ESCAPE, STRING_ESCAPE, WRONG }; /* load_json */

enum { DEPTH_MAX = 32 };

static const char *const TYPES[] = {"", "sources", "delta", "restart", "done", "error"};

void load_sse_init(struct load_sse *sse)
{
    *sse = (struct load_sse){.state = FIELD};
}

/* --- the JSON object of a delta --- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void begin_json(struct load_sse *sse)
{
    sse->json = (struct load_json){.state = OUTSIDE};
    sse->new_tokens = 0;
}

static void take_text(struct load_sse *sse, char c)
{
    bool was_in_word = sse->in_word;
    sse->in_word = !is_blank(c);
    sse->new_tokens += sse->in_word && !was_in_word ? 1 : 0;
}

static void open_string(struct load_json *json)
{
    json->state = STRING;
    json->matched = 0;
    if (json->depth == 1 && json->wants_key) {
        json->state = KEY;
    } else if (json->depth == 1 && json->is_text) {
        json->state = json->has_text ? WRONG : TEXT;
        json->has_text = true;
    }
}

static void take_outside(struct load_json *json, char c)
{
    switch (c) {
    case '"':
        open_string(json);
        json->state = json->depth == 0 ? WRONG : json->state;
        break;
    case '{':
    case '[':
        json->wants_key = json->depth == 0;
        json->state = json->depth++ == DEPTH_MAX ? WRONG : OUTSIDE;
        break;
    case '}':
    case ']':
        json->state = json->depth-- == 0 ? WRONG : OUTSIDE;
        break;
    case ',':
        json->wants_key = json->depth == 1;
        json->is_text = false;
        break;
    case ':':
        json->wants_key = false;
        break;
    default:
        break;
    }
}

static void take_key(struct load_json *json, char c)
{
    static const char TEXT_KEY[] = "text";
    if (c == '"') {
        json->is_text = json->matched == 4;
        json->state = OUTSIDE;
        return;
    }
    bool fits = json->matched < 4 && c == TEXT_KEY[json->matched];
    json->matched = (uint8_t)(fits ? json->matched + 1 : 5);
    json->state = c == '\\' ? KEY_ESCAPE : KEY;
}

/* What follows a backslash in the text: blanks end a word, \u escapes are taken for letters. */
static void take_text_escape(struct load_sse *sse, char c)
{
    struct load_json *json = &sse->json;
    if (json->digits > 0) {
        json->state = --json->digits > 0 ? TEXT_ESCAPE : TEXT;
        return;
    }
    take_text(sse, (char)(c == 'n' || c == 't' || c == 'r' ? ' ' : 'x'));
    json->digits = c == 'u' ? 4 : 0;
    json->state = c == 'u' ? TEXT_ESCAPE : TEXT;
}

static void take_json(struct load_sse *sse, char c)
{
    struct load_json *json = &sse->json;
    switch (json->state) {
    case OUTSIDE:
        take_outside(json, c);
        break;
    case KEY:
        take_key(json, c);
        break;
    case TEXT:
        if (c == '"') {
            json->state = OUTSIDE;
        } else if (c == '\\') {
            json->state = TEXT_ESCAPE;
        } else {
            take_text(sse, c);
        }
        break;
    case STRING:
        json->state = c == '"' ? OUTSIDE : c == '\\' ? STRING_ESCAPE : STRING;
        break;
    case KEY_ESCAPE:
        json->state = KEY;
        break;
    case TEXT_ESCAPE:
        take_text_escape(sse, c);
        break;
    case STRING_ESCAPE:
        json->state = STRING;
        break;
    default:
        break;
    }
}

/* --- lines and events --- */

static bool word_is(const struct load_sse *sse, const char *text)
{
    return sl_span_is((struct sl_span){sse->word, sse->word_len}, text);
}

/* A longer one keeps its first bytes: it is none of those that count, which are shorter. */
static void take_word(struct load_sse *sse, char c)
{
    if (sse->word_len < LOAD_WORD_MAX) {
        sse->word[sse->word_len++] = c;
    }
}

static void end_field(struct load_sse *sse)
{
    sse->field = OTHER_FIELD;
    if (word_is(sse, "event")) {
        sse->field = EVENT_FIELD;
    } else if (word_is(sse, "data")) {
        sse->field = DATA_FIELD;
        sse->has_data = true;
        begin_json(sse);
    }
    sse->word_len = 0;
    sse->state = SPACE;
}

static uint8_t type_of(const struct load_sse *sse)
{
    for (uint8_t type = NO_TYPE; type < UNKNOWN; type++) {
        if (word_is(sse, TYPES[type])) {
            return type;
        }
    }
    return UNKNOWN;
}

static int end_delta(struct load_sse *sse)
{
    const struct load_json *json = &sse->json;
    if (json->state != OUTSIDE || json->depth != 0 || !json->has_text) {
        return -SL_EBADMSG;
    }
    sse->tokens += sse->new_tokens;
    sse->events++;
    return 0;
}

static int dispatch(struct load_sse *sse)
{
    if (sse->complete) {
        return -SL_EBADMSG;
    }
    if (sse->ending != LOAD_OPEN || sse->type == NO_TYPE) {
        sse->complete = sse->type == NO_TYPE && sse->ending != LOAD_OPEN && sse->has_mark;
        return sse->complete ? 0 : -SL_EBADMSG;
    }
    switch (sse->type) {
    case SOURCES:
        return 0;
    case DELTA:
        return end_delta(sse);
    case RESTART:
        sse->tokens = 0;
        sse->restarted = true;
        sse->in_word = false;
        return 0;
    case DONE:
    case ERROR:
        sse->ending = sse->type == DONE ? LOAD_DONE : LOAD_ERROR;
        return 0;
    default:
        return -SL_EBADMSG;
    }
}

static int end_line(struct load_sse *sse)
{
    int rv = 0;
    bool empty = sse->state == FIELD && sse->word_len == 0;
    if (empty && sse->has_data) {
        rv = dispatch(sse);
    }
    if (empty) {
        sse->has_data = sse->has_mark = false;
        sse->type = NO_TYPE;
    } else if (sse->state != FIELD && sse->field == EVENT_FIELD) {
        sse->type = type_of(sse);
    } else if (sse->state != FIELD && sse->field == DATA_FIELD) {
        sse->has_mark = word_is(sse, "[DONE]");
    }
    sse->state = FIELD;
    sse->word_len = 0;
    return rv;
}

static void take_value(struct load_sse *sse, char c)
{
    if (sse->field == DATA_FIELD && sse->type == DELTA) {
        take_json(sse, c);
    } else if (sse->field != OTHER_FIELD) {
        take_word(sse, c);
    }
}

static void take_byte(struct load_sse *sse, char c)
{
    if (sse->state == FIELD) {
        if (c == ':') {
            end_field(sse);
        } else {
            take_word(sse, c);
        }
        return;
    }
    bool is_space = sse->state == SPACE && c == ' ';
    sse->state = VALUE;
    if (!is_space) {
        take_value(sse, c);
    }
}

/* Of a value nothing more is wanted: the long ones, such as sources. */
static bool is_skipped(const struct load_sse *sse)
{
    return sse->state == VALUE &&
           (sse->field == OTHER_FIELD ||
            (sse->field == DATA_FIELD && sse->type != DELTA && sse->word_len == LOAD_WORD_MAX));
}

int load_sse_feed(struct load_sse *sse, struct sl_span bytes)
{
    const char *at = bytes.data, *end = bytes.data + bytes.len;
    int rv = 0;
    while (at < end && rv == 0) {
        if (is_skipped(sse)) {
            at = memchr(at, '\n', (size_t)(end - at));
            if (at == NULL) {
                return 0;
            }
        }
        char c = *at++;
        if (c == '\n') {
            rv = end_line(sse);
        } else if (c != '\r') {
            take_byte(sse, c);
        }
    }
    return rv;
}
