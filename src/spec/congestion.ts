/*
 * Parameters of congestion control on RoCEv2 networks: of CNPs (InfiniBand Architecture Specification, annex A17.9.3)
 * and of DCQCN (Zhu et al., "Congestion Control for Large-Scale RDMA Deployments", SIGCOMM 2015: table of section 5.2
 * and figure 14). Rates are bits/s, times µs.
 */

/** N: minimum time between two CNPs of a queue pair. */
export const CNP_INTERVAL = 50

/** Line rates of `dcqcn=RATE`; the default is that of the paper's links. */
export const LineRate = { MIN: 1e6, MAX: 800e9, DEFAULT: 40e9 } as const

export const Dcqcn = {
  /** g: weight of the newest observation in the estimate alpha. */
  gain: 1 / 256,
  /** K: without a CNP for so long, alpha decays. */
  alphaTime: 55,
  /** T and B: time and bytes of one step towards line rate. */
  stepTime: 55,
  stepBytes: 10e6,
  /** F: steps of fast recovery. */
  fastSteps: 5,
  /** R_AI, and R_HAI, which the paper leaves open: ten times R_AI, as in QCN. */
  additive: 40e6,
  hyper: 400e6,
  /** Share of the line rate below which no cut goes. The paper leaves it open. */
  minShare: 0.001,
} as const

/**
 * The marking of a switch's queue (RED): from `min` bytes on, up to `probability` at `max` bytes, all packets beyond.
 */
export const Marking = { min: 5_000, max: 200_000, probability: 0.01 } as const
