/* The body of POST /v1/documents, read into the records that go to Kafka. Pure: on any thread. */
#ifndef SLUICE_GATEWAY_DOCUMENT_REQUEST_H
#define SLUICE_GATEWAY_DOCUMENT_REQUEST_H

#include "common/codec.h"

enum {
    DOCUMENT_ID_MAX = 512,
    COLLECTION_MAX = 128,
    DOCUMENTS_MAX = 1000,
    DOCUMENT_TEXT_MAX = 16 << 20,
    DOCUMENT_BODY_MAX = 24 << 20
};

/* A record on the documents topic. */
struct document_record {
    struct sl_span doc_id; /* In the arena. */
    size_t at, len;        /* Its value, in records. */
};

struct document_request {
    /* What is asked. A text of its own has its names in the URL. */
    bool is_text;
    struct sl_buf body;
    struct sl_span doc_id, collection, metadata; /* Of a text; borrowed; data NULL: not given. */
    struct sl_span ingest_id;                    /* Borrowed. */
    /* What came of it. */
    struct sl_arena arena;
    struct sl_buf records;
    struct document_record *list;
    size_t count;
    struct sl_span run_collection; /* The first document's. */
};

/* Zeroed before; then body and the rest are set. */
void document_request_init(struct document_request *request);
/* 0; -SL_EBADMSG: no JSON ("the body <fault>"); -SL_EINVAL, -SL_ETOOBIG with the fault set;
 * -SL_ENOMEM. Frees the body as soon as nothing points into it any more. */
int document_request_read(struct document_request *request, struct sl_fault *fault) SL_CHECKED;
/* The one record by which a document goes. doc_id and collection are set. 0 or -SL_ENOMEM. */
int document_request_remove(struct document_request *request) SL_CHECKED;
void document_request_fini(struct document_request *request);

#endif
