/*
 * Suspects: jobs that were in flight when their worker died, twice. One of them may be what kills
 * the workers, and what runs beside it when it does so loses its owner too. So a suspect runs
 * alone: nothing is granted and no record is taken while one waits; when what runs has been
 * settled, the first suspect is named to the coordination (sl_admit_hold), which from then on
 * grants it and nothing else; when it is settled the next one follows, and after the last all goes
 * on. Whoever dies of a suspect takes nothing along, and what is granted a fourth time is the one
 * that did it (SL_VERDICT_WORN_OUT).
 *
 * A suspect that waits has its slot and nothing else, no claim and no permit: it waits in the line
 * of admissions like every other job, where its cancellation, its deadline or a drain ends it.
 * Nobody waits for it but those in the same line, so what runs always comes to its end.
 */
#include "common/worker_internal.h"

#include "common/log.h"

#include <assert.h>

void suspects_review(struct sl_worker *worker)
{
    bool hold = !sl_list_empty(&worker->suspects);
    bool alone = worker->counts[JOB_RUNNING] + worker->counts[JOB_SETTLING] == 0;
    const struct sl_admission *only = NULL;
    if (hold && alone) {
        const struct sl_job *job =
            SL_ITEM(sl_list_first(&worker->suspects), struct sl_job, in_suspects);
        assert(job->state == JOB_ADMITTING);
        only = &job->admission;
    }
    sl_admit_hold(worker->coord, hold, only);
    if (worker->holds && !hold && worker->consumer != NULL) {
        sl_consumer_kick(worker->consumer);
    }
    worker->holds = hold;
}

void suspects_add(struct sl_job *job)
{
    struct sl_worker *worker = job->worker;
    assert(job->state == JOB_ADMITTING);
    sl_log(SL_LOG_WARN, "two workers died while they ran this job: it runs alone now",
           SL_SPANF("id", job->id), SL_STR("stage", worker->stage->name),
           SL_STR("topic", job->record.topic), SL_INT("partition", job->record.partition),
           SL_INT("offset", job->record.offset));
    sl_counter_add(worker->suspected, 1);
    sl_list_push(&worker->suspects, &job->in_suspects);
    suspects_review(worker);
}

void suspects_remove(struct sl_job *job)
{
    sl_list_remove(&job->in_suspects);
}
