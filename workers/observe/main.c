/* The program sluice-observe: see observe.c for what it does. */
#include "common/worker.h"
#include "workers/observe/observe.h"

int main(int argc, char **argv)
{
    return sl_worker_main(&observe_stage, argc, argv);
}
