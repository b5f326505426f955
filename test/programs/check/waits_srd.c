/* waits.c with queue pairs of SRD, and without rdma_cm. */
#define SRD
#include <infiniband/efadv.h>

#include "waits.c"
