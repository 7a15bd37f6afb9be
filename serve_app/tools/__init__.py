"""Tools that a model calls: functions, HTTP endpoints and MCP servers, with retry and standby."""
