/*
 * Counting tokens by llama.cpp's /tokenize.
 *
 * It takes a list of strings and of token ids, and answers the ids of all as one list: with the id
 * -1, which no tokenizer makes, behind each string, one call counts thousands of them. Its pieces
 * ("with_pieces") would not do: a model of BERT's family gets them in small letters and without
 * accents, so that they cannot be found again in the text.
 *
 * Texts are asked for in parts of PART_BYTES, one after the other, so that neither writing a
 * request nor reading its answer keeps the loop from others. A part is asked again, with pauses,
 * when the server is not there or busy, for TRY_MS; then the count ends with the reason. So it does
 * at once when the server knows no /tokenize.
 */
#include "workers/ingest/tokens.h"

#include "common/json.h"

#include <stdio.h>

enum {
    PART_BYTES = 32 << 10,
    PART_TEXTS = 4096,
    PART_MOST = 64 << 20, /* One long text, escaped. */
    ANSWER_MOST = 64 << 20,
    TRY_MS = 120000,
    CONNECT_MS = 2000,
    ANSWER_MS = 30000,
    PAUSE_MS = 100,
    PAUSE_MOST_MS = 5000,
};

static void end(struct ingest_count *count, int err, const char *reason)
{
    sl_buf_fini(&count->part);
    count->on_end(count->ctx, err, reason);
}

/* --- asking --- */

static void write_part(struct ingest_count *count)
{
    struct sl_json_writer w = {.out = &count->part};
    struct sl_span text;
    sl_buf_clear(&count->part);
    count->texts = 0;
    sl_json_begin_object(&w);
    sl_json_key(&w, "content");
    sl_json_begin_array(&w);
    while (count->texts < PART_TEXTS && count->part.len < PART_BYTES &&
           count->next(count->ctx, &text)) {
        sl_json_put_string(&w, text);
        sl_json_put_int(&w, -1);
        count->texts++;
    }
    sl_json_end_array(&w);
    sl_json_end_object(&w);
}

static void ask(struct ingest_count *count);

static void on_pause_over(struct sl_timer *timer)
{
    ask(SL_ITEM(timer, struct ingest_count, timer));
}

/* The part may be asked again, or all ends with the reason. */
static void ask_again(struct ingest_count *count, int err)
{
    struct sl_loop *loop = count->tokenizer->loop;
    uint32_t pause_ms = sl_backoff_next_ms(&count->backoff);
    if (sl_loop_now_ms(loop) + pause_ms < count->end_ms) {
        sl_timer_start(loop, &count->timer, pause_ms, on_pause_over);
    } else {
        end(count, err, count->reason);
    }
}

/* --- the answer --- */

/* 0, or -SL_EBADMSG: it is not about the texts of the part. */
static int read_counts(struct ingest_count *count, const struct sl_json *tokens)
{
    const struct sl_json *id;
    uint32_t texts = 0, len = 0;
    if (tokens == NULL || sl_json_type(tokens) != SL_JSON_ARRAY) {
        return -SL_EBADMSG;
    }
    for (size_t at = 0; sl_json_each(tokens, &at, NULL, &id);) {
        if (sl_json_type(id) != SL_JSON_INT) {
            return -SL_EBADMSG;
        }
        texts += sl_json_int(id) == -1 ? 1 : 0;
    }
    if (texts != count->texts) {
        return -SL_EBADMSG;
    }
    for (size_t at = 0; sl_json_each(tokens, &at, NULL, &id); len++) {
        if (sl_json_int(id) == -1) {
            count->take(count->ctx, len);
            len = UINT32_MAX; /* Zero with the next. */
        }
    }
    return 0;
}

static void next_part(struct ingest_count *count)
{
    write_part(count);
    int rv = sl_buf_error(&count->part);
    if (rv != 0 || count->texts == 0) {
        end(count, rv, rv != 0 ? sl_error_text(rv) : "");
        return;
    }
    count->end_ms = sl_loop_now_ms(count->tokenizer->loop) + TRY_MS;
    sl_backoff_reset(&count->backoff);
    ask(count);
}

static void read_answer(struct ingest_count *count, struct sl_span body)
{
    struct sl_json_doc *doc = NULL;
    int rv = sl_json_parse(body, &doc, NULL, 0);
    if (rv == 0) {
        rv = read_counts(count, sl_json_get(sl_json_root(doc), "tokens"));
    }
    sl_json_free(doc);
    if (rv == -SL_EBADMSG) {
        snprintf(count->reason, sizeof(count->reason),
                 "the embedding server's /tokenize does not answer as llama.cpp's does");
        end(count, rv, count->reason);
    } else if (rv != 0) {
        end(count, rv, sl_error_text(rv));
    } else {
        next_part(count);
    }
}

static void on_end(void *ctx, int err, const struct sl_http_response *response, struct sl_span body,
                   const char *detail)
{
    struct ingest_count *count = ctx;
    int status = response->status;
    count->call = NULL;
    if (err != 0) {
        snprintf(count->reason, sizeof(count->reason), "the embedding server's /tokenize: %s",
                 detail);
        ask_again(count, err);
    } else if (status == 200) {
        read_answer(count, body);
    } else if (status == 404 || status == 405 || status == 501) {
        snprintf(count->reason, sizeof(count->reason),
                 "SLUICE_CHUNK_UNIT=model-tokens needs llama.cpp's /tokenize, and the embedding "
                 "server has none (status %d)",
                 status);
        end(count, -SL_EREJECTED, count->reason);
    } else {
        snprintf(count->reason, sizeof(count->reason),
                 "the embedding server's /tokenize answers with status %d", status);
        if (status >= 500 || status == 408 || status == 429) {
            ask_again(count, -SL_EUPSTREAM);
        } else {
            end(count, -SL_EREJECTED, count->reason);
        }
    }
}

static void ask(struct ingest_count *count)
{
    static const struct sl_http_callbacks callbacks = {.on_end = on_end};
    const struct ingest_tokenizer *tokenizer = count->tokenizer;
    const struct sl_http_header headers[] = {
        {SL_SPAN("Content-Type"), SL_SPAN("application/json")},
        {SL_SPAN("Authorization"), sl_span_of(tokenizer->authorization)}};
    const struct sl_http_request request = {.method = "POST",
                                            .url = tokenizer->url,
                                            .headers = headers,
                                            .header_count =
                                                tokenizer->authorization[0] != '\0' ? 2 : 1,
                                            .body = sl_buf_span(&count->part),
                                            .connect_timeout_ms = CONNECT_MS,
                                            .first_byte_timeout_ms = ANSWER_MS,
                                            .idle_timeout_ms = ANSWER_MS,
                                            .total_timeout_ms = 2 * ANSWER_MS,
                                            .max_body = ANSWER_MOST,
                                            .callbacks = &callbacks,
                                            .ctx = count};
    int rv = sl_http_start(tokenizer->http, &request, &count->call);
    if (rv != 0) {
        snprintf(count->reason, sizeof(count->reason), "the embedding server's /tokenize: %s",
                 sl_error_text(rv));
        ask_again(count, rv);
    }
}

/* --- from outside --- */

static void on_started(struct sl_timer *timer)
{
    next_part(SL_ITEM(timer, struct ingest_count, timer));
}

void ingest_count_start(struct ingest_tokenizer *tokenizer, struct ingest_count *count)
{
    count->tokenizer = tokenizer;
    count->call = NULL;
    sl_buf_init(&count->part, PART_MOST);
    sl_backoff_init(&count->backoff, PAUSE_MS, PAUSE_MOST_MS, (uintptr_t)count);
    sl_timer_start(tokenizer->loop, &count->timer, 0, on_started);
}

void ingest_count_cancel(struct ingest_count *count)
{
    if (count->tokenizer == NULL) {
        return;
    }
    if (count->call != NULL) {
        sl_http_cancel(count->call);
        count->call = NULL;
    }
    sl_timer_stop(count->tokenizer->loop, &count->timer);
    sl_buf_fini(&count->part);
}

int ingest_tokenizer_init(struct ingest_tokenizer *tokenizer, struct sl_loop *loop,
                          struct sl_http_client *http, const struct ingest_tokens_config *config,
                          char *why, size_t why_size)
{
    const char *host = strstr(config->url, "://");
    if (host == NULL) {
        snprintf(why, why_size, "SLUICE_CHUNK_UNIT=model-tokens needs SLUICE_EMBED_URL");
        return -SL_EINVAL;
    }
    size_t root = (size_t)(host + 3 - config->url) + strcspn(host + 3, "/?#");
    *tokenizer = (struct ingest_tokenizer){.loop = loop, .http = http};
    int len =
        snprintf(tokenizer->url, sizeof(tokenizer->url), "%.*s/tokenize", (int)root, config->url);
    int key_len = 0;
    if (config->api_key[0] != '\0') {
        key_len = snprintf(tokenizer->authorization, sizeof(tokenizer->authorization), "Bearer %s",
                           config->api_key);
    }
    if (len >= (int)sizeof(tokenizer->url) || key_len >= (int)sizeof(tokenizer->authorization)) {
        snprintf(why, why_size, "SLUICE_EMBED_URL or SLUICE_EMBED_API_KEY is too long");
        return -SL_EINVAL;
    }
    return 0;
}

static const char *const schemes[] = {"http", "https", NULL};

#define AT(field) offsetof(struct ingest_tokens_config, field)
const struct sl_option ingest_tokens_option_table[] = {
    {.name = "SLUICE_EMBED_URL",
     .type = SL_OPT_URL,
     .offset = AT(url),
     .fallback = "",
     .choices = schemes,
     .help = "The embedding server, asked for its tokens at /tokenize by SLUICE_CHUNK_UNIT="
             "model-tokens."},
    {.name = "SLUICE_EMBED_API_KEY",
     .type = SL_OPT_STRING,
     .offset = AT(api_key),
     .fallback = "",
     .secret = true,
     .help = "Sent as a bearer token."},
    {.name = NULL},
};
