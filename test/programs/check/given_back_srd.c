/* given_back.c with queue pairs of SRD. */
#define _GNU_SOURCE
#define SRD
#include <infiniband/efadv.h>

#include "given_back.c"
