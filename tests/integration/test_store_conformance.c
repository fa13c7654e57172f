/*
 * One suite for every store: what is written is found, by its own tenant only, and what is deleted
 * is not. Called with the kind of store, and after it the cases to run, if not all of them. The
 * store is at SLUICE_TEST_STORE, such as redis://127.0.0.1:6379/, to which each case adds a name of
 * its own, or where the kind starts one.
 */
#include "tests/support/conformance.h"

#include <math.h>

enum { DIM = 8 };

static const struct conformance_kind *kind;
static struct conformance c;
static const float east[DIM] = {1}, north[DIM] = {0, 1}, north_east[DIM] = {1, 1};

static void start(void)
{
    conformance_start(&c, kind, 0);
}

static void stop(void)
{
    conformance_stop(&c);
}

static struct sl_store_search by_vector(const float *vector)
{
    return store_search_vector(&c.fixture, vector, DIM);
}

static struct sl_store_search by_text(const char *text)
{
    return store_search_text(&c.fixture, text);
}

static struct sl_store_search in_scope(struct sl_store_search search, const char *tenant,
                                       const char *collection)
{
    search.scope.tenant = sl_span_of(tenant);
    search.scope.collection = sl_span_of(collection);
    return search;
}

static struct sl_batch one(const char *doc_id, const char *text, const float *vector)
{
    return conformance_one(doc_id, text, vector, DIM);
}

static void write_one(struct sl_batch batch)
{
    conformance_write(&c, &batch);
}

/* Both searches find exactly these. */
static void soon(const char *text, const float *vector, const char *ids)
{
    conformance_soon(&c, by_vector(vector), ids);
    if (kind->keyword) {
        conformance_soon(&c, by_text(text), ids);
    }
}

/* Both searches of the scope find so many. */
static void soon_count(const char *tenant, const char *collection, size_t count)
{
    struct sl_store_search search = in_scope(by_vector(east), tenant, collection);
    conformance_soon_count(&c, search, count);
    if (kind->keyword) {
        search = in_scope(by_text("lease"), tenant, collection);
        conformance_soon_count(&c, search, count);
    }
}

/* --- what is found --- */

static void check_permits_chunk(const struct sl_hit *hit)
{
    CHECK(sl_span_is(hit->doc_id, "guide.md"));
    CHECK(sl_span_is(hit->chunk_id, "guide.md_7"));
    CHECK(sl_span_is(hit->text, "Permits bound the calls."));
    CHECK(sl_span_is(hit->metadata, "{\"lang\":\"en\"}"));
    CHECK_INT(hit->chunk_index, 7);
    CHECK_INT(hit->version, 1700000000000003);
    CHECK(hit->score > 0);
}

TEST(what_is_written_is_found_with_all_its_fields)
{
    start();
    struct sl_span texts[] = {SL_SPAN("Leases are renewed."), SL_SPAN("Permits bound the calls.")};
    const float vectors[2 * DIM] = {1, [DIM] = 1, 3};
    struct sl_batch batch = store_batch("guide.md", texts, 2, vectors, DIM);
    batch.first = 6;
    batch.version = 1700000000000003;
    batch.metadata = SL_SPAN("{\"lang\":\"en\"}");
    write_one(batch);
    struct store_end end = conformance_soon(&c, by_vector(north), "guide.md_7 guide.md_6");
    check_permits_chunk(&end.hits[0]);
    if (kind->keyword) {
        end = conformance_soon(&c, by_text("permits"), "guide.md_7");
        check_permits_chunk(&end.hits[0]);
    }
    stop();
}

TEST(before_anything_is_written_nothing_is_found)
{
    start();
    soon("lease", east, "");
    stop();
}

TEST(each_chunk_has_its_own_index_and_metadata)
{
    start();
    struct sl_span texts[] = {SL_SPAN("lease one"), SL_SPAN("permit two")};
    const float vectors[2 * DIM] = {1, [DIM] = 0, 1};
    const uint32_t indexes[] = {4, 19};
    const struct sl_span metadatas[] = {SL_SPAN("{\"headings\":\"A\"}"),
                                        SL_SPAN("{\"headings\":\"A > B\"}")};
    struct sl_batch batch = store_batch("d", texts, 2, vectors, DIM);
    batch.indexes = indexes;
    batch.metadatas = metadatas;
    batch.metadata = SL_SPAN("{\"lang\":\"en\"}");
    write_one(batch);
    struct store_end end = conformance_soon(&c, by_vector(north), "d_19 d_4");
    CHECK_INT(end.hits[0].chunk_index, 19);
    CHECK(sl_span_is(end.hits[0].metadata, "{\"headings\":\"A > B\"}"));
    CHECK(sl_span_is(end.hits[1].metadata, "{\"headings\":\"A\"}"));
    const struct sl_pair filter = {SL_SPAN("headings"), SL_SPAN("A > B")};
    struct sl_store_search search = by_vector(east);
    search.scope.filter = &filter;
    search.scope.filter_len = 1;
    conformance_soon(&c, search, "d_19");
    stop();
}

enum { MANY = 300 };
static struct sl_span many_texts[MANY];
static float many_vectors[MANY * DIM];

/* MANY chunks that point east, word for word what is asked for. */
static struct sl_batch many(const char *doc_id)
{
    for (size_t i = 0; i < MANY; i++) {
        many_texts[i] = SL_SPAN("lease lease");
        many_vectors[i * DIM] = 1;
    }
    return store_batch(doc_id, many_texts, MANY, many_vectors, DIM);
}

TEST(a_neighbour_with_many_better_hits_does_not_crowd_out)
{
    start();
    struct sl_batch batch = many("others");
    batch.tenant = SL_SPAN("acme");
    write_one(batch);
    batch = many("others");
    batch.collection = SL_SPAN("manuals");
    write_one(batch);
    batch = many("others");
    batch.metadata = SL_SPAN("{\"lang\":\"en\",\"year\":2024}");
    write_one(batch);
    batch = one("rare", "one lease among many other words that push its rank down", north);
    batch.metadata = SL_SPAN("{\"lang\":\"de\",\"year\":2024}");
    write_one(batch);
    soon_count("acme", "default", 10);
    soon_count("default", "manuals", 10);
    soon_count("acme", "manuals", 0);
    const struct sl_pair filter[] = {{SL_SPAN("lang"), SL_SPAN("de")},
                                     {SL_SPAN("year"), SL_SPAN("2024")}};
    struct sl_store_search searches[] = {by_vector(east), by_text("lease")};
    for (size_t i = 0; i < (kind->keyword ? 2 : 1); i++) {
        searches[i].scope.filter = filter;
        searches[i].scope.filter_len = 2;
        conformance_soon(&c, searches[i], "rare_0");
    }
    struct sl_batch mine = one("mine", "one lease among many other words", north);
    mine.tenant = SL_SPAN("small");
    write_one(mine);
    soon_count("small", "default", 1);
    stop();
}

TEST(tenants_and_collections_see_only_their_own)
{
    static const char *const scopes[][2] = {
        {"default", "default"}, {"acme", "default"}, {"default", "acme"},
        {"acme corp", "x"},     {"acme", "corp x"},  {"Acme", "default"},
        {"a,b|c", "{x}"},       {"a", "b|c{x}"},     {"acme", "x' OR ''=' \\ \"*"}};
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
        struct sl_store_search search = in_scope(by_vector(east), scopes[i][0], scopes[i][1]);
        struct store_end end = conformance_soon(&c, search, "same_0");
        CHECK_INT(end.hits[0].text.data[13], '0' + (char)i);
        if (kind->keyword) {
            search = in_scope(by_text("lease"), scopes[i][0], scopes[i][1]);
            end = conformance_soon(&c, search, "same_0");
            CHECK_INT(end.hits[0].text.data[13], '0' + (char)i);
        }
    }
    soon_count("nobody", "default", 0);
    soon_count("*", "*", 0);
    stop();
}

TEST(records_without_a_scope_are_of_the_default_one)
{
    if (kind->put_raw == NULL) {
        return;
    }
    start();
    struct sl_batch batch = one("d", "lease", east);
    batch.tenant = SL_SPAN("acme");
    write_one(batch);
    kind->put_raw(c.url, "lease of another program", north, DIM);
    struct store_end end = conformance_soon_count(&c, by_vector(east), 1);
    CHECK(sl_span_is(end.hits[0].text, "lease of another program"));
    CHECK_INT(end.hits[0].version, 0);
    soon_count("default", "default", 1);
    soon_count("acme", "default", 1);
    soon_count("default", "other", 0);
    stop();
}

TEST(filters_compare_values_as_text_and_keys_as_they_are)
{
    static const char metadata[] = "{\"n\":7,\"yes\":true,\"a.b\":\"dot\",\"q\\\"]'\":\"quote\","
                                   "\"none\":null,\"list\":[\"x\"],\"e\":\"\",\"half\":0.5,"
                                   "\"k=v\":\"w\",\"long name\":\"A, B | {C} \\\\ caf\303\251\"}";
    const struct {
        struct sl_pair pair;
        bool found;
    } cases[] = {
        {{SL_SPAN("n"), SL_SPAN("7")}, true},
        {{SL_SPAN("n"), SL_SPAN("07")}, false},
        {{SL_SPAN("yes"), SL_SPAN("true")}, true},
        {{SL_SPAN("yes"), SL_SPAN("1")}, false},
        {{SL_SPAN("a.b"), SL_SPAN("dot")}, true},
        {{SL_SPAN("a.b"), SL_SPAN("Dot")}, false},
        {{SL_SPAN("A.b"), SL_SPAN("dot")}, false},
        {{SL_SPAN("a"), SL_SPAN("dot")}, false},
        {{SL_SPAN("q\"]'"), SL_SPAN("quote")}, true},
        {{SL_SPAN("none"), SL_SPAN("null")}, false},
        {{SL_SPAN("list"), SL_SPAN("x")}, false},
        {{SL_SPAN("e"), SL_SPAN("")}, true},
        {{SL_SPAN("half"), SL_SPAN("0.5")}, true},
        {{SL_SPAN("k"), SL_SPAN("v=w")}, false},
        {{SL_SPAN("k=v"), SL_SPAN("w")}, true},
        {{SL_SPAN("long name"), SL_SPAN("A, B | {C} \\ caf\303\251")}, true},
        {{SL_SPAN("long name"), SL_SPAN("A")}, false},
        {{SL_SPAN("' OR 1=1 --"), SL_SPAN("x")}, false},
        {{SL_SPAN("missing"), SL_SPAN("")}, false},
    };
    start();
    struct sl_batch batch = one("d", "word", east);
    batch.metadata = sl_span_of(metadata);
    write_one(batch);
    soon("word", east, "d_0");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sl_store_search searches[] = {by_vector(east), by_text("word")};
        for (size_t s = 0; s < (kind->keyword ? 2 : 1); s++) {
            searches[s].scope.filter = &cases[i].pair;
            searches[s].scope.filter_len = 1;
            conformance_soon(&c, searches[s], cases[i].found ? "d_0" : "");
        }
    }
    const struct sl_pair several[] = {{SL_SPAN("n"), SL_SPAN("7")}, {SL_SPAN("e"), SL_SPAN("x")}};
    struct sl_store_search search = by_vector(east);
    search.scope.filter = several;
    search.scope.filter_len = 2;
    conformance_soon(&c, search, "");
    stop();
}

/* --- what is written --- */

static float random_float(void)
{
    static uint32_t state = 1;
    state = state * 1664525 + 1013904223;
    return (float)(state >> 8) / (float)(1 << 23) - 1;
}

TEST(a_batch_of_256_chunks_of_384_dimensions)
{
    enum { CHUNKS = 256, WIDE = 384, STEP = 15 };
    static struct sl_span texts[CHUNKS];
    static float vectors[CHUNKS * WIDE];
    static char words[CHUNKS][16];
    start();
    for (size_t i = 0; i < CHUNKS; i++) {
        snprintf(words[i], sizeof(words[i]), "word%zu", i);
        texts[i] = sl_span_of(words[i]);
        for (size_t k = 0; k < WIDE; k++) {
            vectors[i * WIDE + k] = random_float();
        }
    }
    write_one(store_batch("d", texts, CHUNKS, vectors, WIDE));
    for (size_t i = 0; i < CHUNKS; i += STEP) {
        char id[16];
        snprintf(id, sizeof(id), "d_%zu", i);
        struct sl_store_search search = store_search_vector(&c.fixture, vectors + i * WIDE, WIDE);
        search.top_k = 1;
        conformance_soon(&c, search, id);
        if (kind->keyword) {
            conformance_soon(&c, by_text(words[i]), id);
        }
    }
    struct sl_store_search search = store_search_vector(&c.fixture, vectors, WIDE);
    search.top_k = CHUNKS + 10;
    conformance_soon_count(&c, search, CHUNKS);
    stop();
}

TEST(the_same_key_written_twice_stays_one_with_the_new_content)
{
    start();
    write_one(one("d", "the old words", east));
    write_one(one("d", "the old words", east));
    soon("old", east, "d_0");
    write_one(one("d", "entirely new", north));
    if (kind->keyword) {
        conformance_soon(&c, by_text("old"), "");
        conformance_soon(&c, by_text("new"), "d_0");
    }
    struct store_end end = conformance_soon(&c, by_vector(north), "d_0");
    CHECK(sl_span_is(end.hits[0].text, "entirely new"));
    stop();
}

TEST(versions_stand_side_by_side_until_they_are_deleted)
{
    start();
    for (int64_t version = 1; version <= 4; version++) {
        struct sl_batch batch = one("d", "a lease", east);
        batch.version = version;
        write_one(batch);
    }
    struct sl_batch foreign = one("d", "a lease", east);
    foreign.tenant = SL_SPAN("acme");
    write_one(foreign);
    write_one(one("d_0", "a lease", east));
    soon_count("default", "default", 5);
    struct sl_batch document = one("d", "", NULL);
    CHECK_INT(store_delete_version(&c.fixture, c.store, &document, 3).err, 0);
    soon_count("default", "default", 4);
    CHECK_INT(store_delete_below(&c.fixture, c.store, &document, 4).err, 0);
    soon_count("default", "default", 2);
    struct store_end end = conformance_soon_count(&c, by_vector(east), 2);
    CHECK_INT(end.hits[0].version + end.hits[1].version, 4 + 1);
    CHECK_INT(store_delete_version(&c.fixture, c.store, &document, 4).err, 0);
    soon_count("default", "default", 1);
    soon_count("acme", "default", 1);
    stop();
}

TEST(many_chunks_are_deleted_whole)
{
    start();
    write_one(many("old"));
    struct sl_store_search search = by_vector(east);
    search.top_k = MANY + 1;
    conformance_soon_count(&c, search, MANY);
    struct sl_batch document = one("old", "", NULL);
    CHECK_INT(store_delete_below(&c.fixture, c.store, &document, 2).err, 0);
    conformance_soon_count(&c, search, 0);
    stop();
}

TEST(deleting_what_is_not_there_succeeds)
{
    start();
    struct sl_batch unknown = one("unknown", "", NULL);
    CHECK_INT(store_delete_below(&c.fixture, c.store, &unknown, 2).err, 0);
    CHECK_INT(store_delete_version(&c.fixture, c.store, &unknown, 2).err, 0);
    write_one(one("d", "lease", east));
    CHECK_INT(store_delete_below(&c.fixture, c.store, &unknown, 2).err, 0);
    CHECK_INT(store_delete_version(&c.fixture, c.store, &unknown, 2).err, 0);
    soon("lease", east, "d_0");
    stop();
}

TEST(any_document_id_is_kept_as_it_is)
{
    static char longest[513];
    memset(longest, 'x', 512);
    const char *const names[] = {"docs/a b.md",
                                 "it's \"quoted\"",
                                 "caf\303\251/\346\227\245\346\234\254",
                                 "a,b|c{d}@e:*",
                                 "back\\slash",
                                 "d",
                                 "D",
                                 longest};
    enum { NAMES = sizeof(names) / sizeof(names[0]) };
    start();
    for (size_t i = 0; i < NAMES; i++) {
        write_one(one(names[i], "lease", east));
    }
    soon_count("default", "default", NAMES);
    for (size_t i = 0; i < NAMES; i++) {
        struct sl_batch document = one(names[i], "", NULL);
        struct store_end end = conformance_soon_count(&c, by_vector(east), NAMES - i);
        bool found = false;
        for (size_t h = 0; h < end.len; h++) {
            found = found || sl_span_is(end.hits[h].doc_id, names[i]);
        }
        CHECK(found);
        CHECK_INT(store_delete_below(&c.fixture, c.store, &document, 2).err, 0);
    }
    soon_count("default", "default", 0);
    stop();
}

TEST(any_text_is_kept_as_it_is)
{
    static char longest[8001];
    for (size_t i = 0; i < 8000; i++) {
        longest[i] = i % 8 == 7 ? ' ' : (char)('a' + i % 26);
    }
    const char *const texts[] = {
        "zero\342\200\213width \342\200\215 joiner",
        "\360\237\216\211 party \360\237\221\251\342\200\215\360\237\224\254",
        "tab\tand\nline\r\n\"quotes\" \\ @text:{x} $1",
        "\346\227\245\346\234\254\350\252\236\343\201\256\346\226\207", longest};
    enum { TEXTS = sizeof(texts) / sizeof(texts[0]) };
    start();
    for (size_t i = 0; i < TEXTS; i++) {
        char name[8];
        float vector[DIM] = {0};
        vector[i] = 1;
        snprintf(name, sizeof(name), "d%zu", i);
        write_one(one(name, texts[i], vector));
    }
    for (size_t i = 0; i < TEXTS; i++) {
        char id[8];
        float vector[DIM] = {0};
        vector[i] = 1;
        snprintf(id, sizeof(id), "d%zu_0", i);
        struct sl_store_search search = by_vector(vector);
        search.top_k = 1;
        struct store_end end = conformance_soon(&c, search, id);
        CHECK(sl_span_is(end.hits[0].text, texts[i]));
    }
    if (kind->keyword) {
        conformance_soon(&c, by_text("party"), "d1_0");
        conformance_soon(&c, by_text("quotes"), "d2_0");
    }
    stop();
}

/* --- what is refused --- */

TEST(vectors_of_another_length_are_refused_with_a_reason)
{
    const float longer[DIM + 1] = {1};
    char why[300] = "";
    start();
    CHECK_INT(sl_store_dim(c.store), 0);
    write_one(one("d", "first", east));
    CHECK_INT(sl_store_dim(c.store), DIM);
    struct sl_batch batch = conformance_one("e", "second", longer, DIM + 1);
    struct store_end end = conformance_try(&c, &batch);
    CHECK_INT(end.err, -SL_EINVAL);
    CHECK(strstr(end.detail, "8 numbers") != NULL && strstr(end.detail, "has 9") != NULL);
    struct sl_store_search search = store_search_vector(&c.fixture, longer, DIM + 1);
    end = conformance_try_search(&c, &search);
    CHECK_INT(end.err, -SL_EINVAL);
    CHECK(strstr(end.detail, "8 numbers") != NULL && strstr(end.detail, "has 9") != NULL);
    struct sl_store_env env = store_fixture_env(&c.fixture);
    struct sl_store *other = NULL;
    env.dim = DIM + 1;
    CHECK_INT(sl_store_open(c.url, &env, &other, why, sizeof(why)), -SL_EINVAL);
    CHECK(strstr(why, "8 numbers") != NULL && strstr(why, "has 9") != NULL);
    soon("first", east, "d_0");
    stop();
}

TEST(what_is_told_of_the_model_goes_before_the_first_vector)
{
    conformance_start(&c, kind, DIM + 1);
    struct sl_batch batch = one("d", "lease", east);
    struct store_end end = conformance_try(&c, &batch);
    CHECK_INT(end.err, -SL_EINVAL);
    CHECK(strstr(end.detail, "9 numbers") != NULL && strstr(end.detail, "has 8") != NULL);
    stop();
}

TEST(vectors_without_a_direction_are_refused)
{
    static const float zero[DIM] = {0}, infinite[DIM] = {1, INFINITY}, none[DIM] = {1, NAN};
    static const float *const vectors[] = {zero, infinite, none};
    start();
    write_one(one("d", "first", east));
    soon("first", east, "d_0");
    for (size_t i = 0; i < 3; i++) {
        struct sl_batch batch = one("e", "second", vectors[i]);
        CHECK_INT(conformance_try(&c, &batch).err, -SL_EINVAL);
        struct sl_store_search search = by_vector(vectors[i]);
        CHECK_INT(conformance_try_search(&c, &search).err, -SL_EINVAL);
    }
    soon_count("default", "other", 0);
    soon("first", east, "d_0");
    stop();
}

TEST(top_k_is_kept_and_the_best_come_first)
{
    enum { CHUNKS = 60 };
    struct sl_span texts[CHUNKS];
    float vectors[CHUNKS * DIM] = {0};
    start();
    for (size_t i = 0; i < CHUNKS; i++) {
        texts[i] = i % 2 == 0 ? SL_SPAN("lease lease lease") : SL_SPAN("a lease of other words");
        vectors[i * DIM] = 1;
        vectors[i * DIM + 1] = (float)i / 10;
    }
    write_one(store_batch("d", texts, CHUNKS, vectors, DIM));
    struct sl_store_search searches[] = {by_vector(east), by_text("lease")};
    for (size_t s = 0; s < (kind->keyword ? 2 : 1); s++) {
        searches[s].top_k = CHUNKS + 1;
        conformance_soon_count(&c, searches[s], CHUNKS);
        searches[s].top_k = 7;
        struct store_end end = conformance_soon_count(&c, searches[s], 7);
        for (size_t i = 1; i < end.len; i++) {
            CHECK(end.hits[i - 1].score >= end.hits[i].score);
        }
        CHECK(s > 0 || strcmp(conformance_ids(end), "d_0 d_1 d_2 d_3 d_4 d_5 d_6") == 0);
    }
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
        SL_SPAN("@text:{lease} @tenant:{acme}"),
        SL_SPAN("text: lease* | -lease ~lease %lease% (lease"),
        SL_SPAN("^lease => {$weight: 5}"),
        SL_SPAN("*=>[KNN 10 @embedding $vec] \\"),
        SL_SPAN("NOT"),
        SL_SPAN("\360\237\216\211"),
        SL_SPAN("lease \360\237\216\211"),
        SL_SPAN("lease\0permit"),
        SL_SPAN("\xff\xfe\x80"),
        SL_SPAN("%s%n ?1 :x @y $z [1 2] <script> \342\200\213 {a b} : c"),
    };
    static char longest[32768];
    if (!kind->keyword) {
        return;
    }
    start();
    write_one(one("d", "lease", east));
    soon("lease", east, "d_0");
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct sl_store_search search = by_text("");
        search.text = texts[i];
        bool names_it = texts[i].len > 0 && memmem(texts[i].data, texts[i].len, "lease", 5) != NULL;
        conformance_soon_count(&c, search, names_it);
    }
    for (size_t i = 0; i < sizeof(longest); i++) {
        longest[i] = i % 3 == 2 ? ' ' : (char)('a' + (i * 7 + i / 100) % 26);
    }
    struct sl_store_search search = by_text("");
    search.text = (struct sl_span){longest, sizeof(longest)};
    conformance_soon_count(&c, search, 0);
    stop();
}

/* --- how calls end --- */

TEST(a_passed_deadline_and_a_cancellation_leave_nothing_behind)
{
    enum { ROUNDS = 12, CALLS = 6 };
    struct store_end ends[CALLS];
    struct sl_store_call *calls[CALLS];
    start();
    write_one(many("d"));
    struct sl_store_search search = by_vector(east);
    search.deadline_ms = sl_coord_now_ms(c.fixture.coord) - 1;
    struct store_end end = conformance_try_search(&c, &search);
    CHECK_INT(end.err, -SL_EEXPIRED);
    for (int round = 0; round < ROUNDS; round++) {
        const struct sl_batch batch = many("d");
        search = round % 2 == 0 || !kind->keyword ? by_vector(east) : by_text("lease");
        for (size_t i = 0; i < CALLS; i++) {
            ends[i] = (struct store_end){.calls = 0};
            int rv = i % 3 == 0 ? sl_store_upsert(c.store, &batch, search.deadline_ms,
                                                  store_on_done, &ends[i], &calls[i])
                     : i % 3 == 1
                         ? sl_store_delete_version(c.store, &batch, 9, search.deadline_ms,
                                                   store_on_done, &ends[i], &calls[i])
                         : sl_store_search(c.store, &search, store_on_hits, &ends[i], &calls[i]);
            CHECK_INT(rv, 0);
        }
        for (int turn = 0; turn < round; turn++) { /* Each round at another moment. */
            sl_loop_turn(c.fixture.cluster.loop, 1);
        }
        for (size_t i = 0; i < CALLS; i++) {
            if (ends[i].calls == 0) {
                sl_store_cancel(calls[i]);
                ends[i].calls = -1;
            }
        }
        CHECK_INT(sl_permit_held(c.fixture.coord, LIMIT_CHAT), 0);
        soon_count("default", "default", 10);
        for (size_t i = 0; i < CALLS; i++) {
            CHECK(ends[i].calls == -1 || ends[i].calls == 1);
        }
    }
    stop();
}

TEST(two_writers_at_once_make_what_is_missing)
{
    enum { WRITERS = 2 };
    struct store_end ends[WRITERS] = {{.calls = 0}};
    struct sl_store_call *calls[WRITERS];
    static const char *const names[] = {"a", "b"};
    start();
    struct sl_store *stores[WRITERS] = {c.store, conformance_open(&c, DIM)};
    int64_t deadline_ms = sl_coord_now_ms(c.fixture.coord) + 20000;
    for (size_t i = 0; i < WRITERS; i++) {
        struct sl_batch batch = one(names[i], "lease", i == 0 ? east : north_east);
        CHECK_INT(
            sl_store_upsert(stores[i], &batch, deadline_ms, store_on_done, &ends[i], &calls[i]), 0);
    }
    SOON(c.fixture.cluster.loop, ends[0].calls + ends[1].calls == WRITERS);
    for (size_t i = 0; i < WRITERS; i++) {
        CHECK_STR(ends[i].detail, "");
        CHECK_INT(ends[i].err, 0);
    }
    conformance_soon(&c, by_vector(east), "a_0 b_0");
    sl_store_close(stores[1]);
    stop();
}

TEST(a_store_that_is_opened_again_finds_everything)
{
    start();
    write_one(one("d", "lease", east));
    soon("lease", east, "d_0");
    sl_store_close(c.store);
    c.store = conformance_open(&c, DIM);
    CHECK_INT(sl_store_dim(c.store), DIM);
    soon("lease", east, "d_0");
    write_one(one("e", "lease lease", north_east));
    conformance_soon(&c, by_vector(east), "d_0 e_0");
    stop();
}

TEST(chunks_without_vectors_are_found_by_their_words)
{
    if (!kind->keyword) {
        return;
    }
    start();
    write_one(one("d", "only words", NULL));
    conformance_soon(&c, by_text("words"), "d_0");
    conformance_soon(&c, by_vector(east), "");
    write_one(one("d", "only words", east)); /* As a document is, which goes to both stores. */
    write_one(one("d", "only words", NULL));
    soon("words", east, "d_0");
    stop();
}

/* --- the kinds --- */

static const char *start_sqlite(struct store_fixture *fixture)
{
    static char base[128];
    snprintf(base, sizeof(base), "sqlite://%s/", fixture->dir);
    return base;
}

static const struct conformance_kind sqlite = {
    .name = "sqlite", .keyword = true, .start = start_sqlite};
static const struct conformance_kind *const kinds[] = {
    &sqlite, &conformance_redis, &conformance_qdrant, &conformance_opensearch};

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
static const struct test_case cases[] = {
    CASE(what_is_written_is_found_with_all_its_fields),
    CASE(before_anything_is_written_nothing_is_found),
    CASE(each_chunk_has_its_own_index_and_metadata),
    CASE(a_neighbour_with_many_better_hits_does_not_crowd_out),
    CASE(tenants_and_collections_see_only_their_own),
    CASE(records_without_a_scope_are_of_the_default_one),
    CASE(filters_compare_values_as_text_and_keys_as_they_are),
    CASE(a_batch_of_256_chunks_of_384_dimensions),
    CASE(the_same_key_written_twice_stays_one_with_the_new_content),
    CASE(versions_stand_side_by_side_until_they_are_deleted),
    CASE(many_chunks_are_deleted_whole),
    CASE(deleting_what_is_not_there_succeeds),
    CASE(any_document_id_is_kept_as_it_is),
    CASE(any_text_is_kept_as_it_is),
    CASE(vectors_of_another_length_are_refused_with_a_reason),
    CASE(what_is_told_of_the_model_goes_before_the_first_vector),
    CASE(vectors_without_a_direction_are_refused),
    CASE(top_k_is_kept_and_the_best_come_first),
    CASE(any_text_is_a_question),
    CASE(a_passed_deadline_and_a_cancellation_leave_nothing_behind),
    CASE(two_writers_at_once_make_what_is_missing),
    CASE(a_store_that_is_opened_again_finds_everything),
    CASE(chunks_without_vectors_are_found_by_their_words),
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(argv[1], kinds[i]->name) == 0) {
            kind = kinds[i];
            return run_tests(cases, argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "usage: %s KIND [CASE...]\n", argv[0]);
    return 2;
}
