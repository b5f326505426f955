/* Class `pd`: a protection domain (IBA 10.2.3). Destroying one that is used is EBUSY. */
import { CREATE, DESTROY, method, objectClass } from '../schema.ts'
import { ClassId } from './ids.ts'

export const Pd = objectClass('pd', ClassId.pd, {
  methods: {
    create: method(CREATE, { in: {}, out: {}, driverAttributes: true }),
    destroy: method(DESTROY, { in: {}, out: {} }),
  },
})
