/*
 * Class `comp_channel`: a descriptor on which the completion events of any number of CQs arrive (R35, R37). It is read
 * in records of 8 bytes, the CQ's user handle, and lives by its descriptor: closing it is its destruction.
 */
import { CREATE_FD, method, objectClass } from '../schema.ts'
import { ClassId } from './ids.ts'

export const CompChannel = objectClass('comp_channel', ClassId.comp_channel, {
  identity: 'fd',
  methods: { create: method(CREATE_FD, { in: {}, out: {} }) },
})
