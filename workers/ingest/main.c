/* The program sluice-ingest: see ingest.c for what it does. */
#include "common/worker.h"
#include "workers/ingest/ingest.h"

int main(int argc, char **argv)
{
    return sl_worker_main(&ingest_stage, argc, argv);
}
