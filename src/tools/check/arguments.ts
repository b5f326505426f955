/*
 * Arguments of libibverbs' and librdmacm's functions, other than their first objects, that must not be NULL: their
 * names in the manual pages, by function and position. The preload library refuses such calls
 * (shim/recorder/functions.c and verbs.c), which would crash.
 */
import type { Severity } from '../../spec/check/severity.ts'

export const requiredArguments: Readonly<Record<string, Readonly<Record<number, string>>>> = {
  ibv_attach_mcast: { 2: 'gid' },
  ibv_create_ah: { 2: 'attr' },
  ibv_create_ah_from_wc: { 2: 'wc' },
  ibv_create_qp: { 2: 'qp_init_attr' },
  ibv_create_srq: { 2: 'srq_init_attr' },
  ibv_detach_mcast: { 2: 'gid' },
  ibv_get_async_event: { 2: 'event' },
  ibv_get_cq_event: { 2: 'cq', 3: 'cq_context' },
  ibv_modify_qp: { 2: 'attr' },
  ibv_modify_srq: { 2: 'srq_attr' },
  ibv_open_device: { 1: 'device' },
  ibv_poll_cq: { 3: 'wc' },
  ibv_query_device: { 2: 'device_attr' },
  ibv_query_ece: { 2: 'ece' },
  ibv_query_gid: { 4: 'gid' },
  ibv_query_pkey: { 4: 'pkey' },
  ibv_query_port: { 3: 'port_attr' },
  ibv_query_qp: { 2: 'attr', 4: 'init_attr' },
  ibv_query_srq: { 2: 'srq_attr' },
  ibv_set_ece: { 2: 'ece' },
  ibv_start_poll: { 2: 'attr' },
  rdma_create_ep: { 1: 'id', 2: 'res' },
  rdma_create_id: { 2: 'id' },
  rdma_create_qp: { 3: 'qp_init_attr' },
  rdma_create_qp_ex: { 2: 'qp_init_attr' },
  rdma_create_srq: { 3: 'attr' },
  rdma_create_srq_ex: { 2: 'attr' },
  rdma_get_request: { 2: 'id' },
  rdma_getaddrinfo: { 4: 'res' },
  rdma_init_qp_attr: { 2: 'qp_attr', 3: 'qp_attr_mask' },
  rdma_join_multicast_ex: { 2: 'mc_join_attr' },
  rdma_set_option: { 4: 'optval' },
}

interface RequiredPart {
  readonly name: string
  /** Absent: 'error', and the call is refused. */
  readonly severity?: Severity
  readonly consequence?: string
  /** The value is a number, not a pointer. */
  readonly isNumber?: true
  readonly advice?: string
}

const bad: RequiredPart = {
  name: 'bad_wr',
  severity: 'warning',
  consequence: 'a provider that refuses a request writes to it, and crashes',
}
const elements: RequiredPart = { name: 'sg_list of a request whose num_sge is not 0' }
const count: RequiredPart = {
  name: 'num_sge of a request',
  isNumber: true,
  consequence: 'providers that do not refuse it post a request without data',
  advice: 'set num_sge to the number of elements of sg_list, or to 0',
}
const ring: RequiredPart = {
  name: '`next` of a request that comes later in the list',
  consequence: 'the list is a ring, and is posted until the queue is full',
  advice: 'set `next` of the last request to NULL in each post, also if a request is used again',
}

/** Other arguments of posts and polls, and parts of requests (from 17 on: shim/recorder/posts.c). */
export const requiredParts: Readonly<Record<string, Readonly<Record<number, RequiredPart>>>> = {
  ibv_post_send: {
    3: bad,
    17: elements,
    18: { name: 'wr.ud.ah of a request of a queue pair of datagrams' },
    19: ring,
    20: count,
  },
  ibv_post_recv: { 3: bad, 17: elements, 19: ring, 20: count },
  ibv_post_srq_recv: { 3: bad, 17: elements, 19: ring, 20: count },
  ibv_poll_cq: {
    2: {
      name: 'its argument num_entries',
      severity: 'warning',
      isNumber: true,
      consequence: 'it polls nothing, however many completions there are',
      advice: 'pass the number of elements of the array, at least 1',
    },
  },
}

/**
 * First arguments of functions that verbs.h defines inline, by a pattern of their names. The program itself reads the
 * object, so a wrong pointer ends it before a library is called.
 */
const inlineFunctions: readonly (readonly [names: RegExp, argument: string, lacks?: string])[] = [
  [/^ibv_wr_\w+$/, 'qp', 'it was created without this operation (send_ops_flags)'],
  [/^ibv_(post_send|post_recv|bind_mw)$/, 'qp'],
  [/^ibv_(post_srq_recv|post_srq_ops)$/, 'srq'],
  [/^ibv_wc_read_\w+$/, 'cq', 'it was created without this field (wc_flags)'],
  [/^ibv_(poll_cq|req_notify_cq|start_poll|next_poll|end_poll|modify_cq)$/, 'cq'],
  [/^ibv_(alloc_mw|alloc_parent_domain)$/, 'pd'],
  [/^ibv_dealloc_mw$/, 'mw'],
]

/**
 * The first argument of an inline function of verbs, and what else than a wrong pointer ends the program there.
 * Undefined: the function is none.
 */
export const inlineArgument = (name: string): { argument: string; lacks: string | undefined } | undefined => {
  const [, argument, lacks] = inlineFunctions.find(([names]) => names.test(name)) ?? []
  return argument === undefined ? undefined : { argument, lacks }
}
