/* The SQLite store: what is written is found, by both searches, by its own tenant only. */
#include "tests/support/soon.h"
#include "tests/support/store_fixture.h"

#include <math.h>

enum { DIM = 4, MANY = 1000, MANY_DIM = 16, TOP = 20, WORDS = 40, VOCABULARY = 200 };

static struct store_fixture fixture;
static struct sl_store *store;

static void start(void)
{
    store_fixture_start(&fixture);
    store = store_fixture_open(&fixture, fixture.sqlite_url);
}

static void stop(void)
{
    sl_store_close(store);
    store_fixture_stop(&fixture);
}

static void write_one(struct sl_batch batch)
{
    struct store_end end = store_write(&fixture, store, &batch);
    CHECK_STR(end.detail, "");
    CHECK_INT(end.err, 0);
}

static struct store_end find(struct sl_store_search search)
{
    struct store_end end = store_find(&fixture, store, &search);
    CHECK_STR(end.detail, "");
    CHECK_INT(end.err, 0);
    return end;
}

static struct store_end find_text(const char *text)
{
    return find(store_search_text(&fixture, text));
}

static struct store_end find_vector(const float *vector)
{
    return find(store_search_vector(&fixture, vector, DIM));
}

/* The ids of all hits, in order, with spaces between. */
static const char *ids(struct store_end end)
{
    static char text[1024];
    size_t at = 0;
    text[0] = '\0';
    for (size_t i = 0; i < end.len; i++) {
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s" SL_SPAN_FMT, i > 0 ? " " : "",
                               SL_SPAN_ARG(end.hits[i].chunk_id));
        CHECK(at < sizeof(text));
    }
    return text;
}

static const float east[DIM] = {1, 0, 0, 0}, north[DIM] = {0, 1, 0, 0};

/* A document of one chunk. */
static struct sl_batch one(const char *doc_id, const char *text, const float *vector)
{
    static struct sl_span texts[1];
    texts[0] = sl_span_of(text);
    return store_batch(doc_id, texts, 1, vector, DIM);
}

TEST(what_is_written_is_found_with_all_its_fields)
{
    start();
    struct sl_span texts[] = {SL_SPAN("Leases are renewed."), SL_SPAN("Permits bound the calls.")};
    const float vectors[2 * DIM] = {1, 0, 0, 0, 0, 3, 0, 0};
    struct sl_batch batch = store_batch("guide.md", texts, 2, vectors, DIM);
    batch.first = 6;
    batch.version = 3;
    batch.metadata = SL_SPAN("{\"lang\":\"en\"}");
    write_one(batch);
    struct store_end end = find_text("permit");
    CHECK_STR(ids(end), "guide.md_7");
    const struct sl_hit *hit = &end.hits[0];
    CHECK(sl_span_is(hit->doc_id, "guide.md"));
    CHECK(sl_span_is(hit->text, "Permits bound the calls."));
    CHECK(sl_span_is(hit->metadata, "{\"lang\":\"en\"}"));
    CHECK_INT(hit->chunk_index, 7);
    CHECK_INT(hit->version, 3);
    CHECK(hit->score > 0);
    end = find_vector(north);
    CHECK_STR(ids(end), "guide.md_7 guide.md_6");
    CHECK(fabs(end.hits[0].score - 1) < 1e-6 && fabs(end.hits[1].score) < 1e-6);
    CHECK(sl_span_is(end.hits[0].text, "Permits bound the calls."));
    stop();
}

TEST(before_anything_is_written_nothing_is_found)
{
    start();
    CHECK_INT(find_text("lease").len, 0);
    CHECK_INT(find_vector(east).len, 0);
    stop();
}

TEST(words_match_without_accents_case_and_endings)
{
    static const char *const questions[] = {"renew", "RENEWING", "renewed cafés", "cafe", NULL};
    start();
    write_one(one("d", "Renewals happen in a Café", east));
    for (size_t i = 0; questions[i] != NULL; i++) {
        CHECK_STR(ids(find_text(questions[i])), "d_0");
    }
    CHECK_INT(find_text("nothing").len, 0);
    stop();
}

/* --- against brute force --- */

static float corpus_vectors[MANY * MANY_DIM];
static int corpus_words[MANY][WORDS];
static char corpus_text[MANY][WORDS * 6];

static uint32_t next_random(void)
{
    static uint32_t state = 12345;
    state = state * 1664525U + 1013904223U;
    return state >> 8;
}

static float random_float(void)
{
    return (float)(next_random() % 2001) / 1000.0F - 1.0F;
}

/* Documents of 1 to WORDS words; small numbers are frequent. */
static void make_corpus(void)
{
    for (size_t i = 0; i < MANY * MANY_DIM; i++) {
        corpus_vectors[i] = random_float();
    }
    for (size_t i = 0; i < MANY; i++) {
        size_t at = 0;
        size_t words = 1 + next_random() % WORDS;
        for (size_t w = 0; w < WORDS; w++) {
            uint32_t a = next_random() % VOCABULARY;
            uint32_t b = next_random() % VOCABULARY;
            corpus_words[i][w] = w < words ? (int)(a < b ? a : b) : -1;
            if (w < words) {
                at += (size_t)snprintf(corpus_text[i] + at, sizeof(corpus_text[i]) - at, "w%d ",
                                       corpus_words[i][w]);
            }
        }
    }
}

/* In 10 documents of 100 chunks: chunk n is doc<n / 100>_<n % 100>. */
static void write_corpus(void)
{
    enum { PART = 100 };
    struct sl_span texts[PART];
    for (size_t d = 0; d < MANY / PART; d++) {
        char id[16];
        snprintf(id, sizeof(id), "doc%zu", d);
        for (size_t i = 0; i < PART; i++) {
            texts[i] = sl_span_of(corpus_text[d * PART + i]);
        }
        write_one(store_batch(id, texts, PART, corpus_vectors + d * PART * MANY_DIM, MANY_DIM));
    }
}

static size_t index_of(const struct sl_hit *hit)
{
    CHECK(sl_span_begins(hit->doc_id, "doc"));
    return (size_t)(hit->doc_id.data[3] - '0') * 100 + (size_t)hit->chunk_index;
}

static int by_score(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x > y ? -1 : x < y;
}

/* The hits are the best of all scores, in order, each with its own score. */
static void check_hits(struct store_end end, const double *scores, size_t expected)
{
    static double sorted[MANY];
    memcpy(sorted, scores, sizeof(sorted));
    qsort(sorted, MANY, sizeof(sorted[0]), by_score);
    CHECK_INT(end.len, expected);
    for (size_t i = 0; i < end.len; i++) {
        CHECK(fabs(end.hits[i].score - sorted[i]) < 1e-5);
        CHECK(fabs(end.hits[i].score - scores[index_of(&end.hits[i])]) < 1e-5);
    }
}

static double cosine(const float *a, const float *b)
{
    double dot = 0;
    double aa = 0;
    double bb = 0;
    for (size_t i = 0; i < MANY_DIM; i++) {
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return dot / sqrt(aa * bb);
}

static int count_word(size_t i, int word)
{
    int count = 0;
    for (size_t w = 0; w < WORDS; w++) {
        count += corpus_words[i][w] == word;
    }
    return count;
}

static double length_of(size_t i) /* In tokens; the scope is one. */
{
    double len = 1;
    for (size_t w = 0; w < WORDS; w++) {
        len += corpus_words[i][w] >= 0;
    }
    return len;
}

static void add_bm25(int word, double *scores)
{
    double having = 0;
    double total = 0;
    for (size_t i = 0; i < MANY; i++) {
        having += count_word(i, word) > 0;
        total += length_of(i);
    }
    double idf = log((MANY - having + 0.5) / (having + 0.5));
    idf = idf > 0 ? idf : 1e-6;
    for (size_t i = 0; i < MANY; i++) {
        double f = count_word(i, word);
        double norm = 1.2 * (1 - 0.75 + 0.75 * length_of(i) / (total / MANY));
        scores[i] += idf * f * 2.2 / (f + norm);
    }
}

TEST(the_best_of_a_thousand_are_those_of_brute_force)
{
    start();
    make_corpus();
    write_corpus();
    for (int round = 0; round < 10; round++) {
        static double scores[MANY];
        float query[MANY_DIM];
        for (size_t i = 0; i < MANY_DIM; i++) {
            query[i] = random_float();
        }
        for (size_t i = 0; i < MANY; i++) {
            scores[i] = cosine(query, corpus_vectors + i * MANY_DIM);
        }
        struct sl_store_search search = store_search_vector(&fixture, query, MANY_DIM);
        search.top_k = TOP;
        check_hits(find(search), scores, TOP);

        char text[64];
        int a = (int)(next_random() % VOCABULARY);
        int b = a + 1;
        snprintf(text, sizeof(text), "w%d or W%d, NOT?", a, b);
        memset(scores, 0, sizeof(scores));
        add_bm25(a, scores);
        add_bm25(b, scores);
        size_t matching = 0;
        for (size_t i = 0; i < MANY; i++) {
            matching += scores[i] > 0;
        }
        search = store_search_text(&fixture, text);
        search.top_k = TOP;
        check_hits(find(search), scores, matching < TOP ? matching : TOP);
    }
    stop();
}

/* --- filters and scopes --- */

static struct store_end find_filtered(struct sl_store_search search, const struct sl_pair *filter,
                                      size_t len)
{
    search.scope.filter = filter;
    search.scope.filter_len = len;
    return find(search);
}

TEST(a_filter_finds_the_one_chunk_that_fits_among_many_better_ones)
{
    start();
    enum { OTHERS = 300 };
    static struct sl_span texts[OTHERS];
    static float vectors[OTHERS * DIM];
    for (size_t i = 0; i < OTHERS; i++) {
        texts[i] = SL_SPAN("lease lease");
        vectors[i * DIM] = 1;
    }
    struct sl_batch batch = store_batch("others", texts, OTHERS, vectors, DIM);
    batch.metadata = SL_SPAN("{\"lang\":\"en\",\"year\":2024}");
    write_one(batch);
    batch = one("rare", "one lease among many other words that push its rank down", north);
    batch.metadata = SL_SPAN("{\"lang\":\"de\",\"year\":2024}");
    write_one(batch);
    const struct sl_pair filter[] = {{SL_SPAN("lang"), SL_SPAN("de")},
                                     {SL_SPAN("year"), SL_SPAN("2024")}};
    CHECK_STR(ids(find_filtered(store_search_vector(&fixture, east, DIM), filter, 2)), "rare_0");
    CHECK_STR(ids(find_filtered(store_search_text(&fixture, "lease"), filter, 2)), "rare_0");
    stop();
}

TEST(filters_compare_values_as_text_and_keys_as_they_are)
{
    static const char metadata[] = "{\"n\":7,\"yes\":true,\"a.b\":\"dot\",\"q\\\"]'\":\"quote\","
                                   "\"none\":null,\"list\":[\"x\"],\"e\":\"\",\"half\":0.5}";
    const struct {
        struct sl_pair pair;
        bool found;
    } cases[] = {
        {{SL_SPAN("n"), SL_SPAN("7")}, true},
        {{SL_SPAN("n"), SL_SPAN("07")}, false},
        {{SL_SPAN("yes"), SL_SPAN("true")}, true},
        {{SL_SPAN("yes"), SL_SPAN("1")}, false},
        {{SL_SPAN("a.b"), SL_SPAN("dot")}, true},
        {{SL_SPAN("a"), SL_SPAN("dot")}, false},
        {{SL_SPAN("q\"]'"), SL_SPAN("quote")}, true},
        {{SL_SPAN("none"), SL_SPAN("null")}, false},
        {{SL_SPAN("list"), SL_SPAN("x")}, false},
        {{SL_SPAN("e"), SL_SPAN("")}, true},
        {{SL_SPAN("half"), SL_SPAN("0.5")}, true},
        {{SL_SPAN("' OR 1=1 --"), SL_SPAN("x")}, false},
        {{SL_SPAN("missing"), SL_SPAN("")}, false},
    };
    start();
    struct sl_batch batch = one("d", "word", east);
    batch.metadata = sl_span_of(metadata);
    write_one(batch);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sl_store_search by_text = store_search_text(&fixture, "word");
        struct sl_store_search by_vector = store_search_vector(&fixture, east, DIM);
        CHECK_INT(find_filtered(by_text, &cases[i].pair, 1).len, cases[i].found);
        CHECK_INT(find_filtered(by_vector, &cases[i].pair, 1).len, cases[i].found);
    }
    stop();
}

TEST(tenants_and_collections_see_only_their_own)
{
    static const char *const scopes[][2] = {
        {"default", "default"}, {"acme", "default"}, {"default", "acme"}, {"acme", "x' OR ''='"}};
    enum { SCOPES = sizeof(scopes) / sizeof(scopes[0]) };
    start();
    for (size_t i = 0; i < SCOPES; i++) {
        char text[64];
        snprintf(text, sizeof(text), "lease number %zu", i);
        struct sl_batch batch = one("same", text, east);
        batch.tenant = sl_span_of(scopes[i][0]);
        batch.collection = sl_span_of(scopes[i][1]);
        write_one(batch);
    }
    for (size_t i = 0; i < SCOPES; i++) {
        struct sl_store_search searches[] = {
            store_search_text(&fixture, "lease 0 1 2 3 scope"),
            store_search_vector(&fixture, east, DIM),
        };
        for (size_t s = 0; s < 2; s++) {
            searches[s].scope.tenant = sl_span_of(scopes[i][0]);
            searches[s].scope.collection = sl_span_of(scopes[i][1]);
            struct store_end end = find(searches[s]);
            CHECK_INT(end.len, 1);
            CHECK_INT(end.hits[0].text.data[13], '0' + (char)i);
        }
    }
    struct sl_store_search nobody = store_search_text(&fixture, "lease");
    nobody.scope.tenant = SL_SPAN("nobody");
    CHECK_INT(find(nobody).len, 0);
    stop();
}

/* --- writing --- */

TEST(the_same_key_written_twice_stays_one_with_the_new_content)
{
    start();
    write_one(one("d", "the old words", east));
    write_one(one("d", "the old words", east));
    CHECK_STR(ids(find_text("old")), "d_0");
    write_one(one("d", "entirely new", north));
    CHECK_INT(find_text("old").len, 0);
    CHECK_STR(ids(find_text("new")), "d_0");
    struct store_end end = find_vector(north);
    CHECK_STR(ids(end), "d_0");
    CHECK(fabs(end.hits[0].score - 1) < 1e-6);
    stop();
}

TEST(delete_below_removes_older_versions_of_one_document)
{
    start();
    enum { CHUNKS = 150 };
    static struct sl_span texts[CHUNKS];
    static float vectors[CHUNKS * DIM];
    for (size_t i = 0; i < CHUNKS; i++) {
        texts[i] = SL_SPAN("ancient lease");
        vectors[i * DIM] = 1;
    }
    struct sl_batch old = store_batch("d", texts, CHUNKS, vectors, DIM);
    write_one(old);
    struct sl_batch foreign = one("d", "foreign lease", east);
    foreign.tenant = SL_SPAN("acme");
    write_one(foreign);
    write_one(one("e", "other lease", east));
    struct sl_batch new = one("d", "new lease", east);
    new.version = 2;
    write_one(new);
    CHECK_INT(store_delete_below(&fixture, store, &new, 2).err, 0);
    CHECK_INT(find_text("ancient").len, 0);
    CHECK_INT(find_text("lease").len, 2);
    CHECK_INT(find_vector(east).len, 2);
    struct sl_store_search search = store_search_text(&fixture, "lease");
    search.scope.tenant = SL_SPAN("acme");
    CHECK_INT(find(search).len, 1);
    struct sl_batch unknown = one("unknown", "", east);
    CHECK_INT(store_delete_below(&fixture, store, &unknown, 2).err, 0);
    stop();
}

TEST(chunks_without_vectors_are_found_by_their_words)
{
    start();
    write_one(one("d", "only words", NULL));
    CHECK_STR(ids(find_text("words")), "d_0");
    CHECK_INT(find_vector(east).len, 0);
    stop();
}

TEST(vectors_that_cannot_be_compared_are_refused_with_a_reason)
{
    static const float zero[DIM] = {0}, infinite[DIM] = {1, INFINITY, 0, 0};
    const float longer[DIM + 1] = {1};
    start();
    write_one(one("d", "first", east));
    struct sl_batch batch = one("e", "second", longer);
    batch.dim = DIM + 1;
    struct store_end end = store_write(&fixture, store, &batch);
    CHECK_INT(end.err, -SL_EINVAL);
    CHECK(strstr(end.detail, "4 numbers") != NULL && strstr(end.detail, "has 5") != NULL);
    batch = one("e", "second", zero);
    CHECK_INT(store_write(&fixture, store, &batch).err, -SL_EINVAL);
    batch = one("e", "second", infinite);
    CHECK_INT(store_write(&fixture, store, &batch).err, -SL_EINVAL);
    CHECK_INT(find_text("second").len, 0);
    struct sl_store_search search = store_search_vector(&fixture, longer, DIM + 1);
    end = store_find(&fixture, store, &search);
    CHECK_INT(end.err, -SL_EINVAL);
    search = store_search_vector(&fixture, zero, DIM);
    CHECK_INT(store_find(&fixture, store, &search).err, -SL_EINVAL);
    stop();
}

TEST(metadata_that_is_no_json_is_refused)
{
    start();
    struct sl_batch batch = one("d", "word", east);
    batch.metadata = SL_SPAN("{broken");
    CHECK_INT(store_write(&fixture, store, &batch).err, -SL_EINVAL);
    CHECK_INT(find_text("word").len, 0);
    write_one(one("d", "word", east));
    stop();
}

TEST(any_text_is_a_question)
{
    const struct sl_span texts[] = {
        SL_SPAN(""),
        SL_SPAN("\""),
        SL_SPAN("lease\" OR \""),
        SL_SPAN("') ; DROP TABLE chunks; --"),
        SL_SPAN("NEAR(lease permit, 2)"),
        SL_SPAN("scope : 2"),
        SL_SPAN("text: lease*"),
        SL_SPAN("- text : x"),
        SL_SPAN("^lease"),
        SL_SPAN("lease AND AND OR NOT ("),
        SL_SPAN("NOT"),
        SL_SPAN("\360\237\216\211"), /* An emoji. */
        SL_SPAN("lease \360\237\216\211"),
        SL_SPAN("lease\0permit"),
        SL_SPAN("\xff\xfe\x80"),
        SL_SPAN("%s%n ?1 :x @y $z"),
        SL_SPAN("{a b} : c"),
        SL_SPAN("+ + \"\"\"\""),
    };
    static char longest[32768];
    start();
    write_one(one("d", "lease", east));
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct sl_store_search search = store_search_text(&fixture, "");
        search.text = texts[i];
        bool names_it = texts[i].len > 0 && memmem(texts[i].data, texts[i].len, "lease", 5) != NULL;
        CHECK_INT(find(search).len, names_it);
    }
    for (size_t i = 0; i < sizeof(longest); i++) {
        longest[i] = i % 3 == 2 ? ' ' : (char)('a' + (i * 7 + i / 100) % 26);
    }
    struct sl_store_search search = store_search_text(&fixture, "");
    search.text = (struct sl_span){longest, sizeof(longest)};
    CHECK_INT(find(search).err, 0);
    stop();
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
static const struct test_case cases[] = {
    CASE(what_is_written_is_found_with_all_its_fields),
    CASE(before_anything_is_written_nothing_is_found),
    CASE(words_match_without_accents_case_and_endings),
    CASE(the_best_of_a_thousand_are_those_of_brute_force),
    CASE(a_filter_finds_the_one_chunk_that_fits_among_many_better_ones),
    CASE(filters_compare_values_as_text_and_keys_as_they_are),
    CASE(tenants_and_collections_see_only_their_own),
    CASE(the_same_key_written_twice_stays_one_with_the_new_content),
    CASE(delete_below_removes_older_versions_of_one_document),
    CASE(chunks_without_vectors_are_found_by_their_words),
    CASE(vectors_that_cannot_be_compared_are_refused_with_a_reason),
    CASE(metadata_that_is_no_json_is_refused),
    CASE(any_text_is_a_question),
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
