/*
 * Class `counters`: a set of counters that objects of class `flow` increment (Linux: COUNTERS_CREATE, COUNTERS_READ,
 * COUNTERS_DESTROY). The driver defines the meaning of the counters. No driver here has the class: EOPNOTSUPP. The
 * counters of a device and its ports are not objects (spec/counters.ts).
 */
import { CountersFlags } from '../enums.ts'
import { at, CREATE, DESTROY, flagsOf, list, method, objectClass, optional, QUERY, u64 } from '../schema/schema.ts'
import { ClassId } from './ids.ts'

const MAX_COUNTERS = 1024

export const Counters = objectClass('counters', ClassId.counters, {
  methods: {
    create: method(CREATE, { in: {}, out: {}, driverAttributes: true }),
    /** PREFER_CACHED: the driver may return older values. */
    query: method(QUERY, {
      in: { flags: optional(flagsOf(1, CountersFlags)) },
      out: { values: list(64, { value: at(0, u64(0)) }, MAX_COUNTERS) },
    }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
