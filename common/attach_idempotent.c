/*
 * Idempotency keys: of several requests with one key, one produces the query and the others attach
 * to it. common/lua/idempotent.lua decides; here is how it is asked.
 *
 * The story of a key: its first request takes it (NEW), produces the job and says whether the
 * broker has it. Until then the key is open, and who else comes waits; if its gateway dies in
 * between, the next one to ask takes the key over and produces the same job again. When it is
 * certain that there is no job the key goes, and whoever waited finds it free.
 *
 * What can go wrong: an answer is lost. The question is repeated under the same number, which gets
 * the same answer. One that is given up says so with the next ops, or the key would stay open for
 * as long as this gateway lives.
 */
#include "common/attach.h"
#include "common/coord_internal.h"
#include "common/map.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { TENANT_MAX = 128, KEY_MAX = 255, NAME_MAX_LEN = 3 * TENANT_MAX + 1 + KEY_MAX };
enum { GIVE_UP_MS = 600000 }; /* No query runs longer. */
enum { AT_CODE = 2, AT_ID, AT_PLACE };

struct question {
    struct coord_question question;
    struct sl_idempotency *idempotency;
    void (*cb)(void *ctx, int err, enum sl_idempotent answer);
    void *ctx;
    size_t name_len;
    char name[NAME_MAX_LEN];
    char body[33];
};

/* TENANT:KEY, with what would blur the border in the tenant escaped; the key ends it. */
static size_t put_name(const struct sl_idempotency *idempotency, char ret[NAME_MAX_LEN])
{
    static const char digits[] = "0123456789ABCDEF";
    struct sl_span tenant = idempotency->tenant, key = idempotency->key;
    size_t len = 0;
    assert(tenant.len <= TENANT_MAX && key.len > 0 && key.len <= KEY_MAX);
    for (size_t i = 0; i < tenant.len; i++) {
        unsigned char c = (unsigned char)tenant.data[i];
        if (c == ':' || c == '%') {
            ret[len++] = '%';
            ret[len++] = digits[c >> 4];
            ret[len++] = digits[c & 15];
        } else {
            ret[len++] = (char)c;
        }
    }
    ret[len++] = ':';
    memcpy(ret + len, key.data, key.len);
    return len + key.len;
}

/* 128 bits. Under fixed keys, since all gateways must agree; a caller who finds two bodies with the
 * same hash only confuses himself. */
static void hash_body(struct sl_span body, char ret[33])
{
    static const uint64_t seeds[2][2] = {{0x736c756963652d69ULL, 0x64656d706f74656eULL},
                                         {0x742d626f64792d31ULL, 0x2d6f662d32000000ULL}};
    snprintf(ret, 33, "%016" PRIx64 "%016" PRIx64, sl_siphash(seeds[0], body),
             sl_siphash(seeds[1], body));
}

static void put_question(struct coord_question *question)
{
    const struct question *q = SL_ITEM(question, struct question, question);
    coord_args_span(question->coord, (struct sl_span){q->name, q->name_len});
    coord_args_text(question->coord, q->idempotency->id);
    coord_args_text(question->coord, q->body);
    coord_args_place(question->coord, &q->idempotency->place);
    coord_args_int(question->coord, q->idempotency->request);
}

static int take_answer(struct sl_idempotency *idempotency, const struct redisReply *reply,
                       enum sl_idempotent *ret)
{
    long long code = sl_reply_int(sl_reply_at(reply, AT_CODE));
    struct sl_span id = sl_reply_span(sl_reply_at(reply, AT_ID));
    struct sl_place place;
    if (code < SL_IDEMPOTENT_NEW || code > SL_IDEMPOTENT_CONFLICT || id.len == 0 ||
        id.len >= sizeof(idempotency->id) ||
        !coord_read_place(sl_reply_span(sl_reply_at(reply, AT_PLACE)), &place)) {
        return -SL_EPROTO;
    }
    memcpy(idempotency->id, id.data, id.len);
    idempotency->id[id.len] = '\0';
    idempotency->place = place;
    *ret = (enum sl_idempotent)code;
    return 0;
}

static bool on_answer(struct coord_question *question, const struct redisReply *reply, bool last)
{
    struct question *q = SL_ITEM(question, struct question, question);
    enum sl_idempotent answer = SL_IDEMPOTENT_WAIT;
    (void)last;
    int err = reply != NULL ? take_answer(q->idempotency, reply, &answer) : -SL_ECONN;
    if (err != 0 && !question->coord->closing) { /* It may be ours all the same. */
        sl_idempotent_settle(question->coord, q->idempotency, false);
    }
    q->cb(q->ctx, err != 0 ? -SL_ECONN : 0, answer);
    free(q);
    return true;
}

int sl_idempotent_open(struct sl_coord *coord, struct sl_idempotency *idempotency,
                       void (*cb)(void *ctx, int err, enum sl_idempotent answer), void *ctx)
{
    struct question *q = malloc(sizeof(*q));
    if (q == NULL) {
        return -SL_ENOMEM;
    }
    idempotency->request = ++coord->serial;
    q->question = (struct coord_question){
        .script = &coord->idempotent, .put = put_question, .on_answer = on_answer};
    q->idempotency = idempotency;
    q->cb = cb;
    q->ctx = ctx;
    q->name_len = put_name(idempotency, q->name);
    hash_body(idempotency->body, q->body);
    int err = coord_question_ask(coord, &q->question);
    if (err != 0) {
        free(q);
    }
    return err;
}

void sl_idempotent_settle(struct sl_coord *coord, const struct sl_idempotency *idempotency,
                          bool produced)
{
    char name[NAME_MAX_LEN];
    struct sl_op *op = NULL;
    struct sl_span key = {name, put_name(idempotency, name)};
    if (coord_op_about(coord, key, produced ? "produced" : "failed", (struct sl_span){0}, &op) ==
        0) {
        op->serial = idempotency->request;
        coord_op_queue(coord, op, OP_IDEMPOTENT, GIVE_UP_MS);
    }
}
