/*
 * Entry point of `userdma/transport`: the engine, and the interfaces that its owner implements.
 */
export { createEngine, type Engine, type EngineOptions } from './engine.ts'
export * from './types.ts'
