/* order_cases.c with queue pairs of SRD. */
#define SRD
#include <infiniband/efadv.h>

#include "order_cases.c"
