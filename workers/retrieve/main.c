/* The program sluice-retrieve: see retrieve.c for what it does. */
#include "common/worker.h"
#include "workers/retrieve/retrieve.h"

int main(int argc, char **argv)
{
    return sl_worker_main(&retrieve_stage, argc, argv);
}
