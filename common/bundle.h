/*
 * A bundle: events of several queries' streams in one record, so that the tokens which a worker has
 * ready at one moment cost one record and not one each. It goes to gateways only, which ask for it
 * by a header of the job; who names a reply topic by itself gets each event as a record.
 *
 * The value is MessagePack, pairs one after the other: the query's id as str 8, the event as bin
 * 32. Of one query there may be several events; they are in order.
 */
#ifndef SLUICE_COMMON_BUNDLE_H
#define SLUICE_COMMON_BUNDLE_H

#include "common/buf.h"
#include "common/kafka.h"

#define SL_BUNDLE_TYPE "application/vnd.sluice.bundle+msgpack" /* The record's content-type. */

size_t sl_bundle_len(struct sl_span id, struct sl_span event); /* That adding them takes. */

/* id: at most 255 bytes. Errors are in out. */
void sl_bundle_add(struct sl_buf *out, struct sl_span id, struct sl_span event);

/* Each event of a record of a replies topic, a bundle's or the record's own; id is that of the
 * query. Borrows the record. 0; -SL_EBADMSG: what follows is no bundle, the events before it were
 * given. */
int sl_record_events(const struct sl_record *record,
                     void (*each)(void *ctx, struct sl_span id, struct sl_span event),
                     void *ctx) SL_CHECKED;

#endif
