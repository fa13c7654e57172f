/* The program sluice-rerank: see rerank.c for what it does. */
#include "common/worker.h"
#include "workers/rerank/rerank.h"

int main(int argc, char **argv)
{
    return sl_worker_main(&rerank_stage, argc, argv);
}
