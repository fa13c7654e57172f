/*
 * What a minimal client must take from one answer for the next request: the numbers of the
 * embedding, ids and texts of the hits, the order of the reranked, the text of a chat chunk.
 * Numbers of an embedding are read as text and written again as they came.
 *
 * The two rankings are fused by their ranks (1 / (60 + rank)), as Sluice fuses them; with forty
 * hits plain loops are fastest. Question and texts are written as JSON strings by yyjson where they
 * may hold anything.
 */
#include "tests/bench/floor_calls.h"

#include <stdlib.h>
#include <yyjson.h>

static const char system_text[] = "Answer the question using only the numbered passages.";

static void put_value(struct sl_buf *out, const yyjson_val *value)
{
    size_t len;
    char *text = yyjson_val_write(value, 0, &len);
    if (text == NULL) {
        out->err = out->err != 0 ? out->err : -SL_ENOMEM;
        return;
    }
    sl_buf_append(out, text, len);
    free(text);
}

/* The text as a JSON string. */
static void put_string(struct sl_buf *out, struct sl_span text)
{
    yyjson_mut_val string = {0};
    size_t len;
    if (!yyjson_mut_set_strn(&string, text.data, text.len)) {
        return;
    }
    char *json = yyjson_mut_val_write(&string, 0, &len);
    if (json == NULL) {
        out->err = out->err != 0 ? out->err : -SL_ENOMEM;
        return;
    }
    sl_buf_append(out, json, len);
    free(json);
}

static yyjson_doc *parse(struct sl_span text, yyjson_read_flag flags)
{
    return yyjson_read(text.data, text.len, flags);
}

static struct sl_span span_of(yyjson_val *value)
{
    return (struct sl_span){yyjson_get_str(value), yyjson_get_len(value)};
}

/* --- embed and search --- */

void calls_write_embed(struct sl_buf *out, struct sl_span question)
{
    sl_buf_append_text(out, "{\"model\":\"embed\",\"encoding_format\":\"float\",\"input\":[");
    put_string(out, question);
    sl_buf_append_text(out, "]}");
}

bool calls_write_vector(struct sl_buf *out, struct sl_span embed_answer)
{
    yyjson_doc *doc = parse(embed_answer, YYJSON_READ_NUMBER_AS_RAW);
    yyjson_val *data = yyjson_obj_get(yyjson_doc_get_root(doc), "data");
    yyjson_val *vector = yyjson_obj_get(yyjson_arr_get(data, 0), "embedding");
    bool good = yyjson_arr_size(vector) > 0;
    if (good) {
        sl_buf_append_text(out, "{\"query\":");
        put_value(out, vector);
        sl_buf_append_text(out, ",\"limit\":20,\"with_payload\":true}");
    }
    yyjson_doc_free(doc);
    return good;
}

void calls_write_keyword(struct sl_buf *out, struct sl_span question)
{
    sl_buf_append_text(out, "{\"size\":20,\"_source\":{\"excludes\":[\"embedding\"]},\"query\":"
                            "{\"match\":{\"text\":");
    put_string(out, question);
    sl_buf_append_text(out, "}}}");
}

/* --- rerank --- */

static void add_hit(struct calls_passages *passages, size_t rank, yyjson_val *id, yyjson_val *text)
{
    double score = 1 / (61.0 + (double)rank);
    struct sl_span name = span_of(id);
    for (size_t i = 0; i < passages->len; i++) {
        if (passages->ids[i].len == name.len &&
            memcmp(passages->ids[i].data, name.data, name.len) == 0) {
            passages->scores[i] += score;
            return;
        }
    }
    passages->ids[passages->len] = name;
    passages->texts[passages->len] = span_of(text);
    passages->scores[passages->len] = score;
    passages->len++;
}

static bool add_hits(struct calls_passages *passages, yyjson_val *hits, const char *id_key,
                     const char *fields_key)
{
    size_t rank, count;
    yyjson_val *hit;
    if (!yyjson_is_arr(hits)) {
        return false;
    }
    yyjson_arr_foreach(hits, rank, count, hit)
    {
        yyjson_val *id = yyjson_obj_get(hit, id_key);
        yyjson_val *text = yyjson_obj_get(yyjson_obj_get(hit, fields_key), "text");
        if (rank >= CALLS_PASSAGES || !yyjson_is_str(id) || !yyjson_is_str(text)) {
            return false;
        }
        add_hit(passages, rank, id, text);
    }
    return true;
}

/* Insertion sort, best first; equal ones keep their order. */
static void sort(struct calls_passages *passages)
{
    for (size_t i = 1; i < passages->len; i++) {
        double score = passages->scores[i];
        struct sl_span id = passages->ids[i], text = passages->texts[i];
        size_t at = i;
        for (; at > 0 && passages->scores[at - 1] < score; at--) {
            passages->scores[at] = passages->scores[at - 1];
            passages->ids[at] = passages->ids[at - 1];
            passages->texts[at] = passages->texts[at - 1];
        }
        passages->scores[at] = score;
        passages->ids[at] = id;
        passages->texts[at] = text;
    }
    passages->len = passages->len < CALLS_PASSAGES ? passages->len : CALLS_PASSAGES;
}

bool calls_write_rerank(struct sl_buf *out, struct sl_span question, struct sl_span vector_answer,
                        struct sl_span keyword_answer, struct calls_passages *passages)
{
    calls_passages_clear(passages);
    passages->documents[0] = parse(vector_answer, 0);
    passages->documents[1] = parse(keyword_answer, 0);
    yyjson_val *points =
        yyjson_ptr_get(yyjson_doc_get_root(passages->documents[0]), "/result/points");
    yyjson_val *hits = yyjson_ptr_get(yyjson_doc_get_root(passages->documents[1]), "/hits/hits");
    if (!add_hits(passages, points, "id", "payload") ||
        !add_hits(passages, hits, "_id", "_source")) {
        return false;
    }
    sort(passages);
    sl_buf_append_text(out, "{\"model\":\"rerank\",\"query\":");
    put_string(out, question);
    sl_buf_append_text(out, ",\"documents\":[");
    for (size_t i = 0; i < passages->len; i++) {
        sl_buf_append_text(out, i > 0 ? "," : "");
        put_string(out, passages->texts[i]);
    }
    sl_buf_printf(out, "],\"top_n\":%d}", CALLS_SOURCES);
    return true;
}

void calls_passages_clear(struct calls_passages *passages)
{
    yyjson_doc_free(passages->documents[0]);
    yyjson_doc_free(passages->documents[1]);
    passages->documents[0] = passages->documents[1] = NULL;
    passages->len = 0;
}

/* --- chat --- */

bool calls_write_chat(struct sl_buf *out, struct sl_span question,
                      const struct calls_passages *passages, struct sl_span rerank_answer)
{
    yyjson_doc *doc = parse(rerank_answer, 0);
    yyjson_val *results = yyjson_obj_get(yyjson_doc_get_root(doc), "results");
    struct sl_buf prompt;
    size_t number, count;
    yyjson_val *result;
    bool good = yyjson_arr_size(results) > 0;
    sl_buf_init(&prompt, out->max);
    sl_buf_append_text(&prompt, "Passages:\n");
    yyjson_arr_foreach(results, number, count, result)
    {
        yyjson_val *index = yyjson_obj_get(result, "index");
        size_t at = (size_t)yyjson_get_uint(index);
        if (!yyjson_is_uint(index) || at >= passages->len || number >= CALLS_SOURCES) {
            good = false;
            break;
        }
        sl_buf_printf(&prompt, "[%zu] ", number + 1);
        sl_buf_append_span(&prompt, passages->texts[at]);
        sl_buf_append_text(&prompt, "\n");
    }
    sl_buf_append_text(&prompt, "\nQuestion: ");
    sl_buf_append_span(&prompt, question);
    sl_buf_printf(out,
                  "{\"model\":\"chat\",\"stream\":true,\"stream_options\":{\"include_usage\":true},"
                  "\"max_tokens\":512,\"messages\":[{\"role\":\"system\",\"content\":\"%s\"},"
                  "{\"role\":\"user\",\"content\":",
                  system_text);
    put_string(out, sl_buf_span(&prompt));
    sl_buf_append_text(out, "}]}");
    good = good && sl_buf_error(&prompt) == 0;
    sl_buf_fini(&prompt);
    yyjson_doc_free(doc);
    return good;
}

long calls_count_tokens(struct sl_span chunk)
{
    yyjson_doc *doc = parse(chunk, 0);
    if (doc == NULL) {
        return -1;
    }
    yyjson_val *choices = yyjson_obj_get(yyjson_doc_get_root(doc), "choices");
    yyjson_val *delta = yyjson_obj_get(yyjson_arr_get_first(choices), "delta");
    struct sl_span text = span_of(yyjson_obj_get(delta, "content"));
    long count = 0;
    for (size_t i = 0; i < text.len; i++) {
        count += text.data[i] != ' ' && (i + 1 == text.len || text.data[i + 1] == ' ') ? 1 : 0;
    }
    yyjson_doc_free(doc);
    return count;
}
