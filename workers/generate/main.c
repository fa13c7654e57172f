/* The program sluice-generate: see generate.c for what it does. */
#include "common/worker.h"
#include "workers/generate/generate.h"

int main(int argc, char **argv)
{
    return sl_worker_main(&generate_stage, argc, argv);
}
