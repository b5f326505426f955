/*
 * Entry point of `userdma/transport`: the engines, and the interfaces that the owner of a device implements.
 */
export { createEngine, type Engine, type EngineOptions } from './engine.ts'
export * from './types.ts'
